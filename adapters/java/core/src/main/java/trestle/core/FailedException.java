package trestle.core;

/**
 * A task cannot go on. The message is for the person who wrote the pipeline or runs the cluster.
 */
public final class FailedException extends Exception {
  private final boolean hopeless;

  /**
   * @param hopeless no restart will mend it, so that the job is to fail at once
   * @param text what failed, where, and what a person can do
   */
  public FailedException(boolean hopeless, String text) {
    super(text);
    this.hopeless = hopeless;
  }

  FailedException(String text, Throwable cause) {
    super(text, cause);
    this.hopeless = false;
  }

  /** No restart will mend it, so that the job is to fail at once. */
  public boolean hopeless() {
    return hopeless;
  }
}
