package trestle.core;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;

/**
 * Reads a {@link Graph}, whose bytes come from outside: each number is checked before it is used.
 */
final class GraphReader {
  private static final int MAGIC = 0x54525347; // TRSG
  private static final int VERSION = 1;

  private final ByteBuffer in;

  GraphReader(byte[] bytes) {
    in = ByteBuffer.wrap(bytes);
  }

  Graph read() {
    if (in.remaining() < 6 || in.getInt() != MAGIC) {
      throw new IllegalArgumentException("the program's argument is not a job of Trestle's");
    }
    int version = Short.toUnsignedInt(in.getShort());
    if (version != VERSION) {
      throw new IllegalArgumentException(
          "the job's graph is of version "
              + version
              + ", and this adapter reads version "
              + VERSION
              + ": job server and adapter are of different versions");
    }
    String name = string("name");
    int parallelism = number("parallelism");
    int keyGroups = number("key groups");
    Map<String, String> settings = new LinkedHashMap<>();
    for (int n = count("settings", 8); n > 0; n--) {
      settings.put(string("setting's key"), string("setting's value"));
    }
    List<Graph.Stage> stages = list("stages", 13, this::stage);
    List<Graph.Exchange> exchanges = list("exchanges", 17, this::exchange);
    byte[] job = bytes("job");
    if (in.hasRemaining()) {
      throw malformed(in.remaining() + " bytes follow its end");
    }
    if (keyGroups == 0) {
      throw malformed("it has no key groups");
    }
    if (stages.isEmpty()) {
      throw malformed("it has no stages");
    }
    check(stages, exchanges);
    return new Graph(
        name,
        parallelism,
        keyGroups,
        Collections.unmodifiableMap(settings),
        stages,
        exchanges,
        job);
  }

  private Graph.Stage stage() {
    String name = string("stage's name");
    String uid = string("stage's uid");
    need("stage's single", 1);
    return new Graph.Stage(name, uid, in.get() != 0, number("side inputs"));
  }

  private Graph.Exchange exchange() {
    int id = number("exchange's id");
    need("exchange's kind", 1);
    int kind = Byte.toUnsignedInt(in.get());
    if (kind >= Graph.Kind.values().length) {
      throw malformed("exchange " + id + " is of the unknown kind " + kind);
    }
    return new Graph.Exchange(
        id, Graph.Kind.values()[kind], number("from"), number("to"), number("side"));
  }

  private static void check(List<Graph.Stage> stages, List<Graph.Exchange> exchanges) {
    Set<Integer> ids = new HashSet<>();
    for (Graph.Exchange e : exchanges) {
      if (!ids.add(e.id)) {
        throw malformed("two exchanges have the id " + e.id);
      }
      if (e.from >= e.to || e.to >= stages.size()) {
        throw malformed(
            "exchange "
                + e.id
                + " leads from stage "
                + e.from
                + " to "
                + e.to
                + " of "
                + stages.size());
      }
      if (e.input > stages.get(e.to).sideInputs) {
        throw malformed(
            "exchange "
                + e.id
                + " feeds input "
                + e.input
                + " of stage "
                + e.to
                + ", which has "
                + stages.get(e.to).sideInputs
                + " side inputs");
      }
    }
  }

  private <T> List<T> list(String what, int least, Supplier<T> member) {
    List<T> all = new ArrayList<>();
    for (int n = count(what, least); n > 0; n--) {
      all.add(member.get());
    }
    return Collections.unmodifiableList(all);
  }

  /**
   * A list's length, which the bytes that are left must be able to hold at {@code least} bytes a
   * member.
   */
  private int count(String what, int least) {
    int n = number(what);
    if (n > in.remaining() / least) {
      throw malformed(n + " " + what + " do not fit into the " + in.remaining() + " bytes left");
    }
    return n;
  }

  private int number(String what) {
    need(what, 4);
    int n = in.getInt();
    if (n < 0) {
      throw malformed(what + " is " + Integer.toUnsignedString(n) + ", which is too large");
    }
    return n;
  }

  private byte[] bytes(String what) {
    byte[] all = new byte[need(what, number(what))];
    in.get(all);
    return all;
  }

  private String string(String what) {
    byte[] all = bytes(what);
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(all)).toString();
    } catch (CharacterCodingException e) {
      throw malformed(what + " is not UTF-8");
    }
  }

  private int need(String what, int bytes) {
    if (in.remaining() < bytes) {
      throw malformed("it ends within " + what);
    }
    return bytes;
  }

  private static IllegalArgumentException malformed(String why) {
    return new IllegalArgumentException("the job's graph is malformed: " + why);
  }
}
