package trestle.core;

import java.time.Duration;

/** How long a worker may take for what. */
final class Limits {
  static final Limits USUAL =
      new Limits(
          Duration.ofSeconds(60),
          Duration.ofSeconds(2),
          Duration.ofSeconds(20),
          Duration.ofSeconds(10));

  /** From its process's start to its saying where it listens. */
  final Duration start;

  /** Between two pings. */
  final Duration beat;

  /** Without an answer to a ping, until it counts as hanging. */
  final Duration hang;

  /** To end a task or itself when it is told to. */
  final Duration end;

  Limits(Duration start, Duration beat, Duration hang, Duration end) {
    this.start = start;
    this.beat = beat;
    this.hang = hang;
    this.end = end;
  }
}
