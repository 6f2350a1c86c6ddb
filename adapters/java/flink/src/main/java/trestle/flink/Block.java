package trestle.flink;

/** The only record that Flink sees: bytes that the worker packed, bound for a key group. Immutable. */
public final class Block {
  final int keyGroup;
  final byte[] bytes;

  Block(int keyGroup, byte[] bytes) {
    this.keyGroup = keyGroup;
    this.bytes = bytes;
  }
}
