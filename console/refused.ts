export interface Problem {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly remedy: string;
}

/** The server answered, and refused. */
export class Refused extends Error {
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** What somebody is told who tried something and did not succeed. */
export const told = (error: unknown): string => (error instanceof Refused ? `${error.problem.detail}. ${error.problem.remedy}` : 'The server could not be reached; try again.');

export async function problemOf(response: Response): Promise<Problem> {
  try {
    return (await response.json()) as Problem;
  } catch {
    return { status: response.status, code: 'internal', detail: 'The server answered without a problem document.', remedy: 'Look at its log.' };
  }
}
