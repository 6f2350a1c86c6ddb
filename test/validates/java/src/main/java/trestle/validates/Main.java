package trestle.validates;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.junit.runner.Description;
import org.junit.runner.JUnitCore;
import org.junit.runner.Request;
import org.junit.runner.Result;
import org.junit.runner.manipulation.Filter;
import org.junit.runner.notification.Failure;
import org.junit.runner.notification.RunListener;

/**
 * Lists or runs Beam's ValidatesRunner tests, with the options in the system property beamTestPipelineOptions.
 *
 * <pre>
 *   list FILE                         writes a line for each test: its name, a tab, its categories
 *   run NAMES SECONDS RESULTS TEXTS   runs the tests named in a file, each for so long at most; writes a line for each:
 *                                     name, tab, PASS, FAIL or SKIP, tab, milliseconds; and the text of a failure or
 *                                     skip to a file in the folder TEXTS, called like the test
 * </pre>
 */
public final class Main {
  private Main() {}

  public static void main(String[] args) throws Exception {
    if (args.length == 2 && args[0].equals("list")) {
      list(Paths.get(args[1]));
    } else if (args.length == 5 && args[0].equals("run")) {
      run(Paths.get(args[1]), Integer.parseInt(args[2]), Paths.get(args[3]), Paths.get(args[4]));
    } else {
      throw new IllegalArgumentException("list FILE, or run NAMES SECONDS RESULTS TEXTS");
    }
    System.out.flush();
    // Threads of a test that took too long would hold the process.
    Runtime.getRuntime().halt(0);
  }

  private static void list(Path file) throws IOException {
    try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(file))) {
      for (Suite.Case c : Suite.find()) {
        out.println(c.name() + "\t" + String.join(",", c.categories));
      }
    }
  }

  private static void run(Path names, int seconds, Path results, Path texts) throws Exception {
    List<String> wanted = Files.readAllLines(names);
    Set<String> owners = new LinkedHashSet<>();
    for (String name : wanted) owners.add(name.substring(0, name.lastIndexOf('.')));
    Map<String, Suite.Case> cases = new HashMap<>();
    for (String owner : owners) {
      for (Suite.Case c : Suite.ofClass(owner)) cases.put(c.name(), c);
    }
    Set<String> unknown = new TreeSet<>(wanted);
    unknown.removeAll(cases.keySet());
    if (!unknown.isEmpty()) throw new IllegalArgumentException("there are no tests " + unknown);
    try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(results))) {
      for (String name : wanted) {
        long start = System.nanoTime();
        Attempt attempt = new Attempt(cases.get(name));
        attempt.join(seconds);
        long millis = (System.nanoTime() - start) / 1_000_000;
        if (!attempt.text.isEmpty()) Files.writeString(texts.resolve(name), attempt.text);
        out.println(name + "\t" + attempt.outcome + "\t" + millis);
        out.flush();
        System.out.println(name + " " + attempt.outcome + " " + millis + " ms");
      }
    }
  }

  /** One run of one test, in a thread that is left behind when it takes too long. */
  private static final class Attempt {
    String outcome = "FAIL";
    String text = "";
    private final Thread thread;
    private volatile Result result;
    private volatile String skipped;

    Attempt(Suite.Case c) {
      JUnitCore core = new JUnitCore();
      core.addListener(
          new RunListener() {
            @Override
            public void testAssumptionFailure(Failure failure) {
              skipped = String.valueOf(failure.getMessage());
            }

            @Override
            public void testIgnored(Description description) {
              skipped = "ignored";
            }
          });
      Request request = Request.aClass(c.owner).filterWith(only(c.description));
      thread = new Thread(() -> result = core.run(request), "test " + c.name());
      thread.setDaemon(true);
      thread.start();
    }

    void join(int seconds) throws InterruptedException {
      thread.join(seconds * 1000L);
      if (thread.isAlive()) {
        StringBuilder stack = new StringBuilder("took longer than " + seconds + " s, at\n");
        for (StackTraceElement frame : thread.getStackTrace()) stack.append("\tat ").append(frame).append('\n');
        text = stack.toString();
        thread.interrupt();
      } else if (result == null) {
        text = "the test's thread died; see the log";
      } else if (!result.wasSuccessful()) {
        StringWriter all = new StringWriter();
        for (Failure failure : result.getFailures()) all.append(failure.getTrace()).append('\n');
        text = all.toString();
      } else if (skipped != null) {
        outcome = "SKIP";
        text = skipped;
      } else if (result.getRunCount() != 1) {
        text = result.getRunCount() + " tests ran in place of one";
      } else {
        outcome = "PASS";
      }
    }
  }

  private static Filter only(Description wanted) {
    return new Filter() {
      @Override
      public boolean shouldRun(Description description) {
        return description.isTest()
            ? description.equals(wanted)
            : description.getChildren().stream().anyMatch(this::shouldRun);
      }

      @Override
      public String describe() {
        return wanted.getDisplayName();
      }
    };
  }
}
