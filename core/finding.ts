/** What one check of an installation found, for `spamer doctor`. Never a secret, and never what is stored. */
export interface Finding {
  /** What was checked: a setting's name where one leads there. */
  readonly check: string;
  readonly good: boolean;
  readonly found: string;
  /** What to do when it is not good. */
  readonly remedy?: string;
}
