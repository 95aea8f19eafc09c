/** The little of an SQL database that the registry needs; PGlite and PostgreSQL both fit. Parameters are $1, $2 … */
export interface SqlClient {
  query<Row>(sql: string, params?: readonly unknown[]): Promise<Row[]>;
  /** Several statements, no parameters. */
  script(sql: string): Promise<void>;
  /** All or nothing; the transaction's own client is the argument. */
  transaction<Result>(work: (client: SqlClient) => Promise<Result>): Promise<Result>;
}

export interface SqlDatabase extends SqlClient {
  /**
   * Changes when a statement that may write begins and again when it has ended, so what was read under one version is still true under
   * it. null where other processes write too.
   */
  version(): number | null;
  close(): Promise<void>;
}
