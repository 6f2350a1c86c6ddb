package trestle.core;

import java.time.Duration;

/** How long a worker may take for what. */
final class Limits {
  static final Limits USUAL =
      new Limits(
          Duration.ofSeconds(60),
          Duration.ofSeconds(2),
          Duration.ofSeconds(20),
          Duration.ofSeconds(10),
          Duration.ofSeconds(5),
          Duration.ofSeconds(60));

  /** From its process's start to its saying where it listens. */
  final Duration start;

  /** Between two pings. */
  final Duration beat;

  /** Without an answer to a ping, until it counts as hanging. */
  final Duration hang;

  /** To end a task or itself when it is told to. */
  final Duration end;

  /** Between its breaking off a connection and its process's end. */
  final Duration dying;

  /**
   * Without a task, until it ends by itself. Usually 60 s: longer than an engine leaves a process
   * without a task while it mends a job (Flink notices a silent host after 50 s, and starts tasks
   * anew after 10 s at most), and long beside the start of harnesses, which is what one costs that
   * ends too early.
   */
  final Duration idle;

  Limits(
      Duration start, Duration beat, Duration hang, Duration end, Duration dying, Duration idle) {
    this.start = start;
    this.beat = beat;
    this.hang = hang;
    this.end = end;
    this.dying = dying;
    this.idle = idle;
  }
}
