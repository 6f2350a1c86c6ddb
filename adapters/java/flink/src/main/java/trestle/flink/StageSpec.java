package trestle.flink;

import java.io.Serializable;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.util.OutputTag;

/** What the tasks of a stage need to know. Travels with Flink's job. */
final class StageSpec implements Serializable {
  private static final long serialVersionUID = 1;

  /** By which the worker knows the stage. */
  final int index;

  /** For people. */
  final String name;

  /** The contract's input that each of Flink's inputs is; 0 is the main input. */
  final int[] inputs;

  /** Inputs that no exchange feeds. */
  final int[] emptySides;

  /** Ids of the exchanges that the stage feeds. */
  final int[] exchanges;

  /** How many tasks the job's stages have, but for those that have one. */
  final int parallelism;

  StageSpec(int index, String name, int[] inputs, int[] emptySides, int[] exchanges, int parallelism) {
    this.index = index;
    this.name = name;
    this.inputs = inputs;
    this.emptySides = emptySides;
    this.exchanges = exchanges;
    this.parallelism = parallelism;
  }

  /** The output of an exchange, which is one of the sending operator's side outputs. */
  static OutputTag<Block> output(int exchange) {
    return new OutputTag<>("exchange " + exchange, BlockType.INSTANCE);
  }

  Map<Integer, OutputTag<Block>> outputs() {
    Map<Integer, OutputTag<Block>> tags = new HashMap<>();
    for (int exchange : exchanges) {
      tags.put(exchange, output(exchange));
    }
    return tags;
  }
}
