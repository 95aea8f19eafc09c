import { bare } from './bare.js';
import { grpcStream } from './grpc.js';
import { kafkaDirect } from './kafka.js';
import { mosquitto } from './mosquitto.js';
import { jetStream } from './nats.js';
import { ours } from './ours.js';
import type { Peer } from './peer.js';
import { rumqttd } from './rumqttd.js';

/** Ours first; what it is compared with behind it. */
export const peers: readonly Peer[] = [
  ours(1), ours(100), mosquitto(0), mosquitto(1), mosquitto(2), rumqttd, grpcStream(false), grpcStream(true), jetStream('default'), jetStream('always'), kafkaDirect, bare,
];
