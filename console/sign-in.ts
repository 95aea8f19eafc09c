import { make } from './dom.js';
import { issuerName, leaveForIssuer } from './issuer-sign-in.js';
import { Refused, told } from './refused.js';
import type { Server } from './server.js';

/** Name, password and the code of a second factor, or a token; asks for a new password where the present one was for one use. */
export function signInForm(server: Server, done: () => void): HTMLElement {
  const login = make('input', { name: 'login', 'aria-label': 'Name', placeholder: 'name', autocomplete: 'username', required: '', maxlength: '128' });
  const password = make('input', { type: 'password', name: 'password', 'aria-label': 'Password', placeholder: 'password', autocomplete: 'current-password', required: '', maxlength: '1024' });
  const newPassword = make('input', { type: 'password', name: 'new-password', 'aria-label': 'New password', placeholder: 'new password, 12 characters or more', autocomplete: 'new-password', maxlength: '1024' });
  const code = make('input', { name: 'code', 'aria-label': 'Code', placeholder: 'code, if you use one', autocomplete: 'one-time-code', maxlength: '64' });
  newPassword.hidden = true;
  const said = make('span', { role: 'alert', class: 'said' });
  const button = make('button', { type: 'submit' }, 'Sign in');
  const form = make('form', { id: 'sign-in' }, login, password, code, newPassword, button, said);
  const attempt = async (): Promise<void> => {
    button.disabled = true;
    try {
      await server.signIn({ login: login.value, password: password.value, ...(code.value.trim() === '' ? {} : { code: code.value }), ...(newPassword.hidden ? {} : { newPassword: newPassword.value }) });
      done();
    } catch (error) {
      said.textContent = told(error);
      if (error instanceof Refused && error.problem.code === 'password_change_needed') {
        newPassword.hidden = false;
        newPassword.required = true;
        newPassword.focus();
      }
    } finally {
      button.disabled = false;
    }
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void attempt();
  });
  return make('div', {}, form, issuerButton(), make('details', {}, make('summary', {}, 'Use a token instead'), tokenForm(server, done)));
}

/** There once the server has said that people may sign in elsewhere; what it says when that fails stands beside. */
function issuerButton(): HTMLElement {
  const said = make('span', { role: 'alert', class: 'said' });
  const place = make('div', { id: 'issuer-sign-in' });
  const leave = async (button: HTMLButtonElement): Promise<void> => {
    button.disabled = true;
    said.textContent = '';
    try {
      await leaveForIssuer();
    } catch (error) {
      said.textContent = told(error);
    } finally {
      button.disabled = false;
    }
  };
  // Without an answer there is no button: the server is away, which the page says anyway.
  void issuerName().catch(() => null).then((name) => {
    if (name === null) return;
    const button = make('button', { type: 'button' }, `Sign in with ${name}`);
    button.addEventListener('click', () => void leave(button));
    place.append(button, said);
  });
  return place;
}

function tokenForm(server: Server, done: () => void): HTMLElement {
  const input = make('input', { type: 'password', name: 'token', 'aria-label': 'Token', placeholder: 'paste a token', autocomplete: 'off', required: '' });
  const form = make('form', {}, input, make('button', { type: 'submit' }, 'Use'));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    server.useToken(input.value.trim());
    done();
  });
  return make('div', {}, 'An administrator makes one with ', make('code', {}, 'spamer token create --role engineer'), form);
}
