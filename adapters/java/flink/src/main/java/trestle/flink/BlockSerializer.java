package trestle.flink;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** A block on Flink's wire: key group, length, bytes. */
public final class BlockSerializer extends TypeSerializerSingleton<Block> {
  static final BlockSerializer INSTANCE = new BlockSerializer();

  @Override
  public boolean isImmutableType() {
    return true;
  }

  @Override
  public Block createInstance() {
    return new Block(0, new byte[0]);
  }

  @Override
  public Block copy(Block from) {
    return from;
  }

  @Override
  public Block copy(Block from, Block reuse) {
    return from;
  }

  @Override
  public int getLength() {
    return -1;
  }

  @Override
  public void serialize(Block block, DataOutputView out) throws IOException {
    out.writeInt(block.keyGroup);
    out.writeInt(block.bytes.length);
    out.write(block.bytes);
  }

  @Override
  public Block deserialize(DataInputView in) throws IOException {
    int keyGroup = in.readInt();
    byte[] bytes = new byte[in.readInt()];
    in.readFully(bytes);
    return new Block(keyGroup, bytes);
  }

  @Override
  public Block deserialize(Block reuse, DataInputView in) throws IOException {
    return deserialize(in);
  }

  @Override
  public void copy(DataInputView in, DataOutputView out) throws IOException {
    out.writeInt(in.readInt());
    int length = in.readInt();
    out.writeInt(length);
    out.write(in, length);
  }

  @Override
  public TypeSerializerSnapshot<Block> snapshotConfiguration() {
    return new Snapshot();
  }

  /** Says that there is nothing to configure. */
  public static final class Snapshot extends SimpleTypeSerializerSnapshot<Block> {
    public Snapshot() {
      super(() -> INSTANCE);
    }
  }
}
