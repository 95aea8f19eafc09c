import { command } from './context.js';
export const pmr = () => command('pmr', 'Records.', []);
