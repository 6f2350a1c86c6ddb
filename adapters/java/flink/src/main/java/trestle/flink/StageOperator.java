package trestle.flink;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.runtime.taskmanager.TaskManagerRuntimeInfo;
import org.apache.flink.streaming.api.operators.AbstractStreamOperatorV2;
import org.apache.flink.streaming.api.operators.BoundedMultiInput;
import org.apache.flink.streaming.api.operators.Input;
import org.apache.flink.streaming.api.operators.InputSelectable;
import org.apache.flink.streaming.api.operators.InputSelection;
import org.apache.flink.streaming.api.operators.MultipleInputStreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.LatencyMarker;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.util.OutputTag;
import trestle.core.FailedException;
import trestle.core.Task;
import trestle.core.Worker;
import trestle.core.Workers;

/**
 * One task of a stage: Flink's calls become events of the task contract, and what the task sends becomes Flink's records.
 * Flink's input i + 1 is the contract's input {@code stage.inputs[i]}; side inputs are read to their ends before the main one.
 */
final class StageOperator extends AbstractStreamOperatorV2<Block>
    implements MultipleInputStreamOperator<Block>, BoundedMultiInput, InputSelectable, Task.Output {
  private static final int MAIN = 0;

  /** What workers tell of their memory (docs/protocols/socket.md): Flink shows it as metrics of each of their tasks. */
  private static final List<String> MEMORY =
      List.of("resident", "residentPeak", "held", "heldPeak", "budget");

  private final StageSpec stage;
  private final byte[] job;
  private final MailboxExecutor mailbox;
  private final TaskManagerRuntimeInfo taskManager;
  private final Map<Integer, OutputTag<Block>> outputs;
  private final StreamRecord<Block> record = new StreamRecord<>(null);
  private final AtomicBoolean woken = new AtomicBoolean();
  private final Report report = new Report();
  private InputSelection selection;
  private long sidesLeft; // a bit for each of Flink's inputs that are side inputs and have not ended
  private Worker worker;
  private Task task;

  StageOperator(StreamOperatorParameters<Block> parameters, StageSpec stage) {
    super(parameters, stage.inputs.length);
    this.stage = stage;
    job = Translation.job(parameters.getContainingTask().getEnvironment().getJobConfiguration());
    mailbox = parameters.getMailboxExecutor();
    taskManager = parameters.getContainingTask().getEnvironment().getTaskManagerInfo();
    outputs = stage.outputs();
    for (int i = 0; i < stage.inputs.length; i++) {
      if (stage.inputs[i] != MAIN) {
        sidesLeft |= 1L << i;
      }
    }
    select();
  }

  @Override
  @SuppressWarnings("rawtypes") // as Flink has it
  public List<Input> getInputs() {
    List<Input> inputs = new ArrayList<>();
    for (int input : stage.inputs) {
      inputs.add(new BlockInput(input));
    }
    return inputs;
  }

  @Override
  public InputSelection nextSelection() {
    return selection;
  }

  private void select() {
    if (sidesLeft == 0) {
      selection = InputSelection.ALL;
      return;
    }
    InputSelection.Builder sides = new InputSelection.Builder();
    for (int i = 0; i < stage.inputs.length; i++) {
      if ((sidesLeft & 1L << i) != 0) {
        sides.select(i + 1);
      }
    }
    selection = sides.build();
  }

  @Override
  public void open() throws Exception {
    super.open();
    getRuntimeContext()
        .registerUserCodeClassLoaderReleaseHookIfAbsent("trestle-worker", new Release(job));
    TaskInfo info = getRuntimeContext().getTaskInfo();
    getRuntimeContext()
        .addAccumulator("trestle/" + stage.index + "/" + info.getIndexOfThisSubtask(), report);
    for (String name : MEMORY) {
      Gauge<Long> gauge = () -> report.memory(name);
      getMetricGroup().addGroup("trestle").addGroup("worker").gauge(name + "Bytes", gauge);
    }
    try {
      int slots = taskManager.getConfiguration().get(TaskManagerOptions.NUM_TASK_SLOTS);
      worker =
          Workers.get(
              Path.of(taskManager.getTmpDirectories()[0]), job, Math.min(stage.parallelism, slots));
      task =
          Task.open(
              worker,
              stage.index,
              info.getIndexOfThisSubtask(),
              info.getNumberOfParallelSubtasks(),
              info.getAttemptNumber(),
              this,
              this::wake);
      for (int side : stage.emptySides) {
        task.end(side);
      }
    } catch (FailedException e) {
      throw failure(e);
    }
  }

  @Override
  public void endInput(int flinkInput) throws Exception {
    int input = stage.inputs[flinkInput - 1];
    try {
      task.end(input);
      if (input == MAIN) {
        task.awaitEnded(MAIN);
      }
    } catch (FailedException e) {
      throw failure(e);
    }
    sidesLeft &= ~(1L << (flinkInput - 1));
    select();
  }

  @Override
  public void close() throws Exception {
    if (task != null) {
      task.close();
    }
    super.close();
  }

  @Override
  public void emit(int exchange, int keyGroup, byte[] block) throws FailedException {
    OutputTag<Block> tag = outputs.get(exchange);
    if (tag == null) {
      throw new FailedException(
          true, "the worker emits into exchange " + exchange + ", which this stage does not feed");
    }
    output.collect(tag, record.replace(new Block(keyGroup, block)));
  }

  @Override
  public void report(byte[] latest) {
    report.add(latest);
  }

  /**
   * Has the task drained by its own thread, should that be idle. A thread that waits for the task takes what comes by itself,
   * and never by the mailbox's own yield: at a task's end the mailbox takes no mail any more.
   */
  private void wake() {
    if (woken.compareAndSet(false, true)) {
      try {
        mailbox.execute(this::drain, "output of Trestle's worker");
      } catch (RejectedExecutionException e) {
        LOG.trace("the task is ending", e); // and its thread does not wait for mail
      }
    }
  }

  private void drain() throws Exception {
    woken.set(false);
    if (task == null) {
      return; // it is being opened, which takes what comes
    }
    try {
      task.drain();
    } catch (FailedException e) {
      throw failure(e);
    }
  }

  /** The failure as Flink gets it: the last line tells readers of Flink's stack traces where the text ends. */
  private Exception failure(FailedException e) {
    TaskInfo info = getRuntimeContext().getTaskInfo();
    String message =
        String.format(
            "%s\n[trestle: stage %s, task %d of %d, host %s, worker %s]",
            e.getMessage(),
            stage.name,
            info.getIndexOfThisSubtask() + 1,
            info.getNumberOfParallelSubtasks(),
            Hosts.name(taskManager),
            worker == null ? "none" : worker.pid());
    return e.hopeless() ? new JobFailed(message) : new TaskFailed(message);
  }

  /** Ends the worker with the job. Holds nothing but what it needs, since the class loader keeps it. */
  private static final class Release implements Runnable {
    private final byte[] job;

    Release(byte[] job) {
      this.job = job;
    }

    @Override
    public void run() {
      Workers.stop(job);
    }
  }

  /** One of Flink's inputs. Time in a bounded job is the worker's alone, and there is no state of Flink's. */
  private final class BlockInput implements Input<Block> {
    private final int input;

    BlockInput(int input) {
      this.input = input;
    }

    @Override
    public void processElement(StreamRecord<Block> element) throws Exception {
      Block block = element.getValue();
      try {
        task.process(input, block.keyGroup, block.bytes);
      } catch (FailedException e) {
        throw failure(e);
      }
    }

    @Override
    public void processWatermark(Watermark mark) {}

    @Override
    public void processWatermarkStatus(WatermarkStatus status) {}

    @Override
    public void processLatencyMarker(LatencyMarker marker) {}

    @Override
    public void setKeyContextElement(StreamRecord<Block> element) {}
  }
}
