package trestle.flink;

import org.apache.flink.streaming.api.operators.AbstractStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.ChainingStrategy;
import org.apache.flink.streaming.api.operators.StreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;

/** Makes a stage's operators. Stages are never chained to each other; a root's source runs in the root's own task. */
final class StageOperatorFactory extends AbstractStreamOperatorFactory<Block> {
  private static final long serialVersionUID = 1;

  private final StageSpec stage;

  StageOperatorFactory(StageSpec stage) {
    this.stage = stage;
    setChainingStrategy(ChainingStrategy.HEAD_WITH_SOURCES);
  }

  @Override
  @SuppressWarnings("unchecked") // as Flink has it
  public <T extends StreamOperator<Block>> T createStreamOperator(
      StreamOperatorParameters<Block> parameters) {
    return (T) new StageOperator(parameters, stage);
  }

  @Override
  @SuppressWarnings("rawtypes") // as Flink has it
  public Class<? extends StreamOperator> getStreamOperatorClass(ClassLoader classLoader) {
    return StageOperator.class;
  }
}
