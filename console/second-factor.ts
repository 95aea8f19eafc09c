import { make } from './dom.js';
import { told } from './refused.js';
import type { Server } from './server.js';
import { encode } from './uqr.mjs';

/** The panel in which who signed in sets up the own second factor, or gets new recovery codes. What it shows is shown once, and goes with it. */
export async function secondFactorPanel(server: Server, close: () => void): Promise<HTMLElement> {
  const { inForce, recoveryCodes } = await server.get<{ inForce: boolean; recoveryCodes: number }>('/v1/second-factor');
  const shut = make('button', { type: 'button' }, 'Close');
  shut.addEventListener('click', close);
  const place = make('div', {});
  const show = (...children: ReadonlyArray<Node | string>): void => {
    place.replaceChildren(...children);
    place.querySelector('input')?.focus();
  };
  if (inForce) {
    show(`It is in force; ${recoveryCodes} recovery codes are left. Another administrator takes it away when it is lost.`, asked('New recovery codes', code, async (value) => {
      show(...recovery((await server.post<Codes>('/v1/second-factor/recovery-codes', { code: value })).recoveryCodes, 'The old ones are good no more.'));
    }));
  } else {
    show('Beside the password every sign-in then asks for a code of an authenticator app.', asked('Begin', { type: 'password', name: 'password', 'aria-label': 'Your password', placeholder: 'your password', autocomplete: 'current-password', maxlength: '1024' }, async (password) => {
      const { uri } = await server.post<{ uri: string }>('/v1/second-factor', { password });
      show(...scan(uri), asked('Put in force', code, async (value) => {
        show(...recovery((await server.post<Codes>('/v1/second-factor/confirm', { code: value })).recoveryCodes, 'It is in force: every sign-in asks for a code now, and your other sessions have ended.'));
      }));
    }));
  }
  return make('section', { id: 'second-factor', class: 'panel', 'aria-label': 'Second factor' }, make('div', { class: 'row' }, make('h2', {}, 'Second factor'), shut), place);
}

interface Codes { readonly recoveryCodes: readonly string[] }

const code = { name: 'code', 'aria-label': 'Code', placeholder: 'code that the app shows', autocomplete: 'one-time-code', maxlength: '64' };

/** A form of one field; what is refused is told beside it. */
function asked(action: string, field: Readonly<Record<string, string>>, work: (value: string) => Promise<void>): HTMLElement {
  const input = make('input', { ...field, required: '' });
  const button = make('button', { type: 'submit' }, action);
  const said = make('span', { role: 'alert', class: 'said' });
  const form = make('form', {}, input, button, said);
  const attempt = async (): Promise<void> => {
    button.disabled = true;
    try {
      await work(input.value);
    } catch (error) {
      said.textContent = told(error);
    } finally {
      button.disabled = false;
    }
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void attempt();
  });
  return form;
}

function scan(uri: string): readonly Node[] {
  const secret = new URL(uri).searchParams.get('secret') ?? '';
  return [make('p', {}, 'Scan this with the app, or type the secret in; then give a code that it shows. It is shown this once.'), drawn(uri), make('p', {}, 'Secret ', make('code', { id: 'second-factor-secret' }, secret)), make('p', {}, make('code', {}, uri))];
}

function recovery(codes: readonly string[], then: string): readonly Node[] {
  const list = make('ol', { id: 'recovery-codes' }, ...codes.map((each) => make('li', {}, make('code', {}, each))));
  return [make('p', { role: 'status' }, `${then} These recovery codes are shown this once; each signs in once in the place of a code. Keep them where the phone is not.`), list];
}

const svg = 'http://www.w3.org/2000/svg';

/** Dark on light in either colour scheme, since not every app reads it the other way round. */
function drawn(text: string): SVGElement {
  const { data, size } = encode(text, { border: 4 });
  const picture = document.createElementNS(svg, 'svg');
  for (const [name, value] of Object.entries({ viewBox: `0 0 ${size} ${size}`, class: 'qr', role: 'img', 'aria-label': 'QR code for an authenticator app' })) picture.setAttribute(name, value);
  const path = document.createElementNS(svg, 'path');
  path.setAttribute('d', data.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : ''))).join(''));
  picture.append(path);
  return picture;
}
