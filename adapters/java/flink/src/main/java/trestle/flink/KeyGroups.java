package trestle.flink;

import org.apache.flink.api.common.functions.Partitioner;
import org.apache.flink.api.java.functions.KeySelector;

/** A keyed exchange: a block goes to the task that owns its key group, which is Flink's own rule too. */
final class KeyGroups implements Partitioner<Integer>, KeySelector<Block, Integer> {
  private final int keyGroups;

  KeyGroups(int keyGroups) {
    this.keyGroups = keyGroups;
  }

  @Override
  public Integer getKey(Block block) {
    return block.keyGroup;
  }

  @Override
  public int partition(Integer keyGroup, int tasks) {
    return (int) ((long) keyGroup * tasks / keyGroups);
  }
}
