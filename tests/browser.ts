import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** As much of playwright-core as is used here: it is no dependency of the program, so its types are not there either. */
interface Cdp { on(event: string, heard: (data: { readonly encodedDataLength: number }) => void): void; send(method: string): Promise<unknown> }
export interface Page {
  on(event: 'pageerror', heard: (error: Error) => void): void;
  on(event: 'console', heard: (message: { type(): string; text(): string }) => void): void;
  on(event: 'request', heard: (request: { url(): string; headers(): Readonly<Record<string, string | undefined>> }) => void): void;
  goto(url: string): Promise<unknown>;
  evaluate<T>(expression: string): Promise<T>;
  /** Also while the page is loaded anew, where `evaluate` fails. */
  waitForSelector(selector: string, options: { readonly state: 'attached'; readonly timeout: number }): Promise<unknown>;
  setViewportSize(size: { readonly width: number; readonly height: number }): Promise<void>;
  emulateMedia(media: { readonly colorScheme: 'dark' | 'light' }): Promise<void>;
  screenshot(options: { readonly path: string }): Promise<unknown>;
  readonly keyboard: { press(key: string): Promise<void> };
  context(): { newCDPSession(page: Page): Promise<Cdp> };
}
export interface Browser { newPage(options: object): Promise<Page>; close(): Promise<void> }
interface Playwright { readonly chromium: { launch(options: object): Promise<Browser> } }

export const chromium = process.env['SPAMER_CHROMIUM'] ?? '/usr/bin/chromium';
export const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/** The browser's driver, or why there is none. */
export function playwright(): Playwright | string {
  if (!existsSync(chromium)) return `no browser at ${chromium}; SPAMER_CHROMIUM names another`;
  const folder = fileURLToPath(new URL('../../tests/servers/', import.meta.url));
  try {
    return createRequire(`${folder}package.json`)('playwright-core') as Playwright;
  } catch {
    return 'playwright-core is missing: npm ci --prefix tests/servers';
  }
}
