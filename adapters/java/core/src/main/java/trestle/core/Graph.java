package trestle.core;

import java.util.List;
import java.util.Map;

/** The graph of a submitted job, from which an adapter builds the engine's own. Immutable. */
public final class Graph {
  /** The job's, as the engine's own pages show it. */
  public final String name;

  /** Tasks of a stage; 0: the engine's default. */
  public final int parallelism;

  /** Slices of the key space, which is the engine's maximum parallelism. */
  public final int keyGroups;

  /** Of the engine's, for this job, in the order given. */
  public final Map<String, String> settings;

  /** In topological order. */
  public final List<Stage> stages;

  public final List<Exchange> exchanges;

  /** What workers get unread. */
  public final byte[] job;

  Graph(
      String name,
      int parallelism,
      int keyGroups,
      Map<String, String> settings,
      List<Stage> stages,
      List<Exchange> exchanges,
      byte[] job) {
    this.name = name;
    this.parallelism = parallelism;
    this.keyGroups = keyGroups;
    this.settings = settings;
    this.stages = stages;
    this.exchanges = exchanges;
    this.job = job;
  }

  /**
   * Reads the format of docs/formats/job.md.
   *
   * @throws IllegalArgumentException when the bytes are of another format or version, or contradict
   *     themselves
   */
  public static Graph decode(byte[] bytes) {
    return new GraphReader(bytes).read();
  }

  /** Transforms that run as one, in so many tasks. */
  public static final class Stage {
    /** For people; several stages may have the same. */
    public final String name;

    /** The same for the same transforms in a later version of the pipeline. */
    public final String uid;

    /** The stage has one task whatever the parallelism. */
    public final boolean single;

    public final int sideInputs;

    Stage(String name, String uid, boolean single, int sideInputs) {
      this.name = name;
      this.uid = uid;
      this.single = single;
      this.sideInputs = sideInputs;
    }
  }

  /** How blocks pass from one stage to another. */
  public static final class Exchange {
    /** By which the worker names it. */
    public final int id;

    public final Kind kind;

    /** Index of the sending stage. */
    public final int from;

    /** Index of the receiving stage, larger than that of the sending one. */
    public final int to;

    /**
     * Which of the receiving stage's inputs it feeds: 0 is the main input, 1 + i the i-th side
     * input.
     */
    public final int input;

    Exchange(int id, Kind kind, int from, int to, int input) {
      this.id = id;
      this.kind = kind;
      this.from = from;
      this.to = to;
      this.input = input;
    }
  }

  /** Which task of the receiving stage gets a block; the order is that of the format's numbers. */
  public enum Kind {
    FORWARD,
    REBALANCE,
    KEYED,
    BROADCAST
  }
}
