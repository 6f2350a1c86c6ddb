package trestle.flink;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import org.apache.flink.runtime.taskmanager.TaskManagerRuntimeInfo;
import org.apache.flink.streaming.api.operators.AbstractStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.AbstractStreamOperatorV2;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.StreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.LatencyMarker;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import trestle.core.ProbeRun;

/** Runs the probe where Flink has placed it, and leaves what it says as an accumulator. */
final class ProbeOperator extends AbstractStreamOperatorV2<Block>
    implements OneInputStreamOperator<Block, Block> {
  private final byte[] pack;
  private final String host;
  private final Path tmp;

  private ProbeOperator(StreamOperatorParameters<Block> parameters, byte[] pack) {
    super(parameters, 1);
    this.pack = pack;
    TaskManagerRuntimeInfo taskManager =
        parameters.getContainingTask().getEnvironment().getTaskManagerInfo();
    host = Hosts.name(taskManager);
    tmp = Path.of(taskManager.getTmpDirectories()[0]);
  }

  @Override
  public void processElement(StreamRecord<Block> element) {
    throw new IllegalStateException("the probe has no input");
  }

  @Override
  public void processWatermark(Watermark mark) {}

  @Override
  public void processWatermarkStatus(WatermarkStatus status) {}

  @Override
  public void processLatencyMarker(LatencyMarker marker) {}

  @Override
  public void setKeyContextElement(StreamRecord<Block> element) {}

  @Override
  public void finish() throws Exception {
    Report report = new Report();
    int task = getRuntimeContext().getTaskInfo().getIndexOfThisSubtask();
    getRuntimeContext().addAccumulator("trestle/probe/" + task, report);
    report.add(ProbeRun.json(host, tmp, pack).getBytes(StandardCharsets.UTF_8));
    super.finish();
  }

  /** Makes them, each with the package that the probe gets unread. */
  static final class Factory extends AbstractStreamOperatorFactory<Block>
      implements OneInputStreamOperatorFactory<Block, Block> {
    private static final long serialVersionUID = 1;

    private final byte[] pack;

    Factory(byte[] pack) {
      this.pack = pack;
    }

    @Override
    @SuppressWarnings("unchecked") // as Flink has it
    public <T extends StreamOperator<Block>> T createStreamOperator(
        StreamOperatorParameters<Block> parameters) {
      return (T) new ProbeOperator(parameters, pack);
    }

    @Override
    @SuppressWarnings("rawtypes") // as Flink has it
    public Class<? extends StreamOperator> getStreamOperatorClass(ClassLoader classLoader) {
      return ProbeOperator.class;
    }
  }
}
