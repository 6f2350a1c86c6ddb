package trestle.flink;

import org.apache.flink.runtime.throwable.ThrowableAnnotation;
import org.apache.flink.runtime.throwable.ThrowableType;

/** A task has failed and would again, so that Flink does not restart it. It has no stack trace. */
@ThrowableAnnotation(ThrowableType.NonRecoverableError)
public final class JobFailed extends Exception {
  JobFailed(String message) {
    super(message, null, false, false);
  }
}
