package trestle.core;

/**
 * What a worker has sent. Of the fields those hold that the type's row in docs/protocols/socket.md
 * names.
 */
final class Frame {
  static final int OPENED = 65;
  static final int EMIT = 66;
  static final int ENDED = 67;
  static final int REPORT = 68;
  static final int CREDIT = 69;
  static final int FAILED = 70;
  static final int CLOSED = 71;
  static final int PONG = 72;

  /** Never sent: the reader's word that the connection is gone. {@link #body} says why. */
  static final int LOST = -1;

  static final byte[] NOTHING = {};

  final int type;

  /** The exchange of an emit, the input of an ended, the kind of a failed. */
  final int index;

  final int keyGroup;

  /** Bytes of credit, or a pong's number. */
  final long number;

  final byte[] body;

  Frame(int type, int index, int keyGroup, long number, byte[] body) {
    this.type = type;
    this.index = index;
    this.keyGroup = keyGroup;
    this.number = number;
    this.body = body;
  }
}
