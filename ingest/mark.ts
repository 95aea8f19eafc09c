/** A place in a device's count of frames: the highest seq of an epoch that was passed, taken or skipped for good. */
export interface Mark {
  readonly epoch: number;
  readonly seq: number;
}

/** State table `devices`, key the device's UUID text: JSON of the durable mark and accepted samples per signal code. */
export interface DeviceState extends Mark {
  readonly counts: Readonly<Record<string, number>>;
}
