/** The package is served as a file of this page: see scripts/build.mjs. */
export { encode } from 'uqr';
