package trestle.flink;

import org.apache.flink.runtime.taskmanager.TaskManagerRuntimeInfo;
import trestle.core.Host;

/** A TaskManager's host, for texts that people read. */
final class Hosts {
  private Hosts() {}

  /** The host by its own name, and as Flink's pages call it where that is something else. */
  static String name(TaskManagerRuntimeInfo taskManager) {
    String name = Host.name();
    String address = taskManager.getTaskManagerExternalAddress();
    return address.isEmpty() || address.equals(name) ? name : name + " (" + address + ")";
  }
}
