package org.apache.beam.examples.complete.game;

import java.util.Map;
import org.apache.beam.examples.complete.game.UserScore.GameActionInfo;
import org.apache.beam.sdk.Pipeline;
import org.apache.beam.sdk.io.kafka.KafkaIO;
import org.apache.beam.sdk.options.Description;
import org.apache.beam.sdk.options.PipelineOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.options.StreamingOptions;
import org.apache.beam.sdk.transforms.Combine;
import org.apache.beam.sdk.transforms.DoFn;
import org.apache.beam.sdk.transforms.Filter;
import org.apache.beam.sdk.transforms.MapElements;
import org.apache.beam.sdk.transforms.Mean;
import org.apache.beam.sdk.transforms.ParDo;
import org.apache.beam.sdk.transforms.Values;
import org.apache.beam.sdk.transforms.View;
import org.apache.beam.sdk.transforms.WithTimestamps;
import org.apache.beam.sdk.transforms.windowing.BoundedWindow;
import org.apache.beam.sdk.transforms.windowing.FixedWindows;
import org.apache.beam.sdk.transforms.windowing.IntervalWindow;
import org.apache.beam.sdk.transforms.windowing.Sessions;
import org.apache.beam.sdk.transforms.windowing.TimestampCombiner;
import org.apache.beam.sdk.transforms.windowing.Window;
import org.apache.beam.sdk.values.KV;
import org.apache.beam.sdk.values.PCollection;
import org.apache.beam.sdk.values.PCollectionView;
import org.apache.beam.sdk.values.TypeDescriptors;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.joda.time.Duration;
import org.joda.time.Instant;
import org.joda.time.format.DateTimeFormat;
import org.joda.time.format.DateTimeFormatter;

/**
 * Beam's game examples, with Kafka where they have Pub/Sub, text files and BigQuery: what is between is of the examples' own
 * transforms, put together as their main methods do. It is in their package, since most are not public.
 */
public final class Games {
  /** What is read, and how. */
  public interface Options extends StreamingOptions {
    @Description("hourly_team_score, leader_board or game_stats")
    String getExample();

    void setExample(String value);

    String getBootstrap();

    void setBootstrap(String value);

    String getTopic();

    void setTopic(String value);

    String getOut();

    void setOut(String value);

    @Description("Of the table; a record's key")
    String getTableName();

    void setTableName(String value);

    @Description("For hourly_team_score, in milliseconds")
    long getStartMin();

    void setStartMin(long value);

    long getStopMin();

    void setStopMin(long value);
  }

  private static final Duration WINDOW = Duration.standardMinutes(60);
  private static final Duration LATENESS = Duration.standardMinutes(120);
  private static final Duration SESSION_GAP = Duration.standardMinutes(5);
  private static final Duration SESSION_WINDOW = Duration.standardMinutes(30);

  private static final DateTimeFormatter FORMAT =
      DateTimeFormat.forPattern("yyyy-MM-dd HH:mm:ss.SSS").withZoneUTC();

  /** A row of a score, of a team in a window or of a user. */
  static class Score extends DoFn<KV<String, Integer>, KV<String, String>> {
    private final String table;
    private final boolean team;

    Score(String table, boolean team) {
      this.table = table;
      this.team = team;
    }

    @ProcessElement
    public void process(
        @Element KV<String, Integer> score,
        BoundedWindow window,
        OutputReceiver<KV<String, String>> out) {
      String row =
          team
              ? String.format(
                  "{\"team\": \"%s\", \"total_score\": %d, \"window_start\": \"%s\"}",
                  score.getKey(),
                  score.getValue(),
                  FORMAT.print(((IntervalWindow) window).start()))
              : String.format(
                  "{\"user\": \"%s\", \"total_score\": %d}", score.getKey(), score.getValue());
      out.output(KV.of(table, row));
    }
  }

  /** A row of a mean. */
  static class MeanRow extends DoFn<Double, KV<String, String>> {
    private final String table;

    MeanRow(String table) {
      this.table = table;
    }

    @ProcessElement
    public void process(@Element Double mean, OutputReceiver<KV<String, String>> out) {
      out.output(KV.of(table, "{\"mean_duration\": " + mean + "}"));
    }
  }

  /** What GameStats has as an anonymous class in its main method. */
  static class WithoutSpammers extends DoFn<GameActionInfo, GameActionInfo> {
    private final PCollectionView<Map<String, Integer>> spammers;

    WithoutSpammers(PCollectionView<Map<String, Integer>> spammers) {
      this.spammers = spammers;
    }

    @ProcessElement
    public void process(ProcessContext c) {
      if (c.sideInput(spammers).get(c.element().getUser().trim()) == null) {
        c.output(c.element());
      }
    }
  }

  @SuppressWarnings("unchecked") // the class is as it says, and private
  private static DoFn<KV<String, Integer>, Integer> userSessionInfo() {
    try {
      var constructor =
          Class.forName(GameStats.class.getName() + "$UserSessionInfoFn").getDeclaredConstructor();
      constructor.setAccessible(true);
      return (DoFn<KV<String, Integer>, Integer>) constructor.newInstance();
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException("the examples are others than these", e);
    }
  }

  private final Options options;

  private Games(Options options) {
    this.options = options;
  }

  private PCollection<GameActionInfo> events(Pipeline p) {
    return p.apply(
            KafkaIO.<String, String>read()
                .withBootstrapServers(options.getBootstrap())
                .withTopic(options.getTopic())
                .withKeyDeserializer(StringDeserializer.class)
                .withValueDeserializer(StringDeserializer.class)
                .withConsumerConfigUpdates(Map.of("auto.offset.reset", "earliest"))
                .withCreateTime(Duration.ZERO)
                .withoutMetadata())
        .apply(Values.create())
        .apply("ParseGameEvent", ParDo.of(new UserScore.ParseEventFn()))
        .apply("AddEventTimestamps", WithTimestamps.of(i -> new Instant(i.getTimestamp())));
  }

  private void write(PCollection<KV<String, String>> rows) {
    rows.apply(
        KafkaIO.<String, String>write()
            .withBootstrapServers(options.getBootstrap())
            .withTopic(options.getOut())
            .withKeySerializer(StringSerializer.class)
            .withValueSerializer(StringSerializer.class));
  }

  private void hourlyTeamScore(PCollection<GameActionInfo> events) {
    Instant start = new Instant(options.getStartMin());
    Instant stop = new Instant(options.getStopMin());
    write(
        events
            .apply("FilterStartTime", Filter.by(i -> i.getTimestamp() > start.getMillis()))
            .apply("FilterEndTime", Filter.by(i -> i.getTimestamp() < stop.getMillis()))
            .apply("FixedWindowsTeam", Window.into(FixedWindows.of(WINDOW)))
            .apply("ExtractTeamScore", new UserScore.ExtractAndSumScore("team"))
            .apply(ParDo.of(new Score(options.getTableName(), true))));
  }

  private void leaderBoard(PCollection<GameActionInfo> events) {
    write(
        events
            .apply("CalculateTeamScores", new LeaderBoard.CalculateTeamScores(WINDOW, LATENESS))
            .apply("TeamRows", ParDo.of(new Score(options.getTableName() + "_teams", true))));
    write(
        events
            .apply("CalculateUserScores", new LeaderBoard.CalculateUserScores(LATENESS))
            .apply("UserRows", ParDo.of(new Score(options.getTableName() + "_users", false))));
  }

  private void gameStats(PCollection<GameActionInfo> events) {
    PCollection<KV<String, Integer>> users =
        events.apply(
            "ExtractUserScore",
            MapElements.into(
                    TypeDescriptors.kvs(TypeDescriptors.strings(), TypeDescriptors.integers()))
                .via((GameActionInfo i) -> KV.of(i.getUser(), i.getScore())));
    PCollectionView<Map<String, Integer>> spammers =
        users
            .apply("FixedWindowsUser", Window.into(FixedWindows.of(WINDOW)))
            .apply("CalculateSpammyUsers", new GameStats.CalculateSpammyUsers())
            .apply("CreateSpammersView", View.asMap());
    write(
        events
            .apply("WindowIntoFixedWindows", Window.into(FixedWindows.of(WINDOW)))
            .apply(
                "FilterOutSpammers",
                ParDo.of(new WithoutSpammers(spammers)).withSideInputs(spammers))
            .apply("ExtractTeamScore", new UserScore.ExtractAndSumScore("team"))
            .apply("TeamRows", ParDo.of(new Score(options.getTableName() + "_teams", true))));
    write(
        users
            .apply(
                "WindowIntoSessions",
                Window.<KV<String, Integer>>into(Sessions.withGapDuration(SESSION_GAP))
                    .withTimestampCombiner(TimestampCombiner.END_OF_WINDOW))
            .apply(Combine.perKey(x -> 0))
            .apply("UserSessionActivity", ParDo.of(userSessionInfo()))
            .apply("WindowToExtractSessionMean", Window.into(FixedWindows.of(SESSION_WINDOW)))
            .apply(Mean.<Integer>globally().withoutDefaults())
            .apply("MeanRows", ParDo.of(new MeanRow(options.getTableName() + "_sessions"))));
  }

  public static void main(String[] args) {
    PipelineOptionsFactory.register(Options.class);
    Options options = PipelineOptionsFactory.fromArgs(args).withValidation().as(Options.class);
    options.setStreaming(true);
    Games games = new Games(options);
    Pipeline p = Pipeline.create((PipelineOptions) options);
    PCollection<GameActionInfo> events = games.events(p);
    switch (options.getExample()) {
      case "hourly_team_score":
        games.hourlyTeamScore(events);
        break;
      case "leader_board":
        games.leaderBoard(events);
        break;
      case "game_stats":
        games.gameStats(events);
        break;
      default:
        throw new IllegalArgumentException("there is no example " + options.getExample());
    }
    p.run().waitUntilFinish();
  }
}
