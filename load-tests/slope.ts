export type Point = readonly [x: number, y: number];

/** Median of the slopes between all pairs of points (Theil 1950, Sen 1968): a few outliers do not move it. NaN of fewer than two. */
export function theilSen(points: readonly Point[]): number {
  const slopes: number[] = [];
  for (let a = 0; a < points.length; a++) {
    for (let b = a + 1; b < points.length; b++) {
      const [[x0, y0], [x1, y1]] = [points[a] ?? [NaN, NaN], points[b] ?? [NaN, NaN]];
      if (x1 !== x0) slopes.push((y1 - y0) / (x1 - x0));
    }
  }
  return median(slopes);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[half] ?? NaN) : ((sorted[half - 1] ?? NaN) + (sorted[half] ?? NaN)) / 2;
}

/** Exponent p of y = c·x^p by least squares on log-log axes: 1 is linear, 0 is flat. All coordinates above 0. */
export function logLogSlope(points: readonly Point[]): number {
  const logs = points.map(([x, y]): Point => [Math.log(x), Math.log(y)]);
  const mean = (at: 0 | 1): number => logs.reduce((sum, point) => sum + point[at], 0) / logs.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  const spread = logs.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return logs.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) / spread;
}
