package trestle.streaming;

import java.util.Map;
import org.apache.beam.sdk.Pipeline;
import org.apache.beam.sdk.io.kafka.KafkaIO;
import org.apache.beam.sdk.options.Description;
import org.apache.beam.sdk.options.PipelineOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.options.StreamingOptions;
import org.apache.beam.sdk.transforms.DoFn;
import org.apache.beam.sdk.transforms.GroupByKey;
import org.apache.beam.sdk.transforms.ParDo;
import org.apache.beam.sdk.transforms.windowing.BoundedWindow;
import org.apache.beam.sdk.transforms.windowing.FixedWindows;
import org.apache.beam.sdk.transforms.windowing.IntervalWindow;
import org.apache.beam.sdk.transforms.windowing.Window;
import org.apache.beam.sdk.values.KV;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.joda.time.Duration;

/** Kafka in, windows, a GroupByKey, Kafka out: what python/kafka.py does. */
public final class Kafka {
  /** What is read, and how. */
  public interface Options extends StreamingOptions {
    @Description("The broker's host:port")
    String getBootstrap();

    void setBootstrap(String value);

    String getTopic();

    void setTopic(String value);

    String getOut();

    void setOut(String value);

    @Description("What time is a record's: CreateTime or LogAppendTime")
    String getPolicy();

    void setPolicy(String value);

    @Description("In seconds")
    int getWindow();

    void setWindow(int value);

    @Description("In seconds; each late record has its group told again, with all it has")
    int getLateness();

    void setLateness(int value);

    String getGroup();

    void setGroup(String value);
  }

  static class Count extends DoFn<KV<String, Iterable<String>>, KV<String, String>> {
    @ProcessElement
    public void process(
        @Element KV<String, Iterable<String>> group,
        BoundedWindow window,
        OutputReceiver<KV<String, String>> out) {
      long n = 0;
      for (String ignored : group.getValue()) {
        n++;
      }
      long start = ((IntervalWindow) window).start().getMillis() / 1000;
      out.output(KV.of(group.getKey(), start + " " + n));
    }
  }

  public static void main(String[] args) {
    PipelineOptionsFactory.register(Options.class);
    Options options = PipelineOptionsFactory.fromArgs(args).withValidation().as(Options.class);
    options.setStreaming(true);
    KafkaIO.Read<String, String> read =
        KafkaIO.<String, String>read()
            .withBootstrapServers(options.getBootstrap())
            .withTopic(options.getTopic())
            .withKeyDeserializer(StringDeserializer.class)
            .withValueDeserializer(StringDeserializer.class)
            .withConsumerConfigUpdates(
                Map.of("group.id", options.getGroup(), "auto.offset.reset", "earliest"))
            .commitOffsetsInFinalize();
    read =
        options.getPolicy().equals("CreateTime")
            ? read.withCreateTime(Duration.ZERO)
            : read.withLogAppendTime();
    Pipeline p = Pipeline.create((PipelineOptions) options);
    p.apply(read.withoutMetadata())
        .apply(
            Window.<KV<String, String>>into(
                    FixedWindows.of(Duration.standardSeconds(options.getWindow())))
                .withAllowedLateness(Duration.standardSeconds(options.getLateness()))
                .accumulatingFiredPanes())
        .apply(GroupByKey.create())
        .apply(ParDo.of(new Count()))
        .apply(
            KafkaIO.<String, String>write()
                .withBootstrapServers(options.getBootstrap())
                .withTopic(options.getOut())
                .withKeySerializer(StringSerializer.class)
                .withValueSerializer(StringSerializer.class));
    p.run().waitUntilFinish();
  }

  private Kafka() {}
}
