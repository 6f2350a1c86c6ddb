package trestle.flink;

/** A task has failed; another attempt may succeed. The message is all there is to say: it has no stack trace. */
public final class TaskFailed extends Exception {
  TaskFailed(String message) {
    super(message, null, false, false);
  }
}
