package trestle.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(180)
final class ProbeRunTest {
  private static final byte[] PACK = "a package".getBytes(StandardCharsets.UTF_8);

  @Test
  void itSaysWhatItPrinted() throws Exception {
    assertThat(run("echo logged >&2; printf '\"'; cat; printf '\"'", 60))
        .isEqualTo("\"a package\"");
  }

  @Test
  void oneThatFailsSaysWhatItLogged() {
    assertThat(failure("cat >/dev/null; echo no way >&2; exit 4", 60))
        .isEqualTo("the probe ended with exit status 4. Its last lines:\nno way");
  }

  @Test
  void oneThatHangsIsEnded() {
    assertThat(failure("echo still here >&2; exec sleep 60", 5))
        .isEqualTo("the probe did not end within 5 s. Its last lines:\nstill here");
  }

  @Test
  void oneThatSaysTooMuchIsRefused() {
    assertThat(failure("cat >/dev/null; head -c 2000000 /dev/zero; true", 60))
        .contains("it said more than");
  }

  @Test
  void textsAreQuoted() {
    assertThat(ProbeRun.quoted("a \"b\" \\ \n\u0001 ü"))
        .isEqualTo("\"a \\\"b\\\" \\\\ \\u000a\\u0001 ü\"");
  }

  private static String run(String script, int seconds) throws Exception {
    return ProbeRun.run(List.of("/bin/sh", "-c", script), PACK, Duration.ofSeconds(seconds));
  }

  private static String failure(String script, int seconds) {
    return catchThrowableOfType(FailedException.class, () -> run(script, seconds)).getMessage();
  }
}
