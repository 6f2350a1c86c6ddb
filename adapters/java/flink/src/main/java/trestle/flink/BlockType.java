package trestle.flink;

import org.apache.flink.api.common.ExecutionConfig;
import org.apache.flink.api.common.serialization.SerializerConfig;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.TypeSerializer;

/** The type of {@link Block}, for Flink. */
public final class BlockType extends TypeInformation<Block> {
  static final BlockType INSTANCE = new BlockType();

  @Override
  public boolean isBasicType() {
    return false;
  }

  @Override
  public boolean isTupleType() {
    return false;
  }

  @Override
  public int getArity() {
    return 1;
  }

  @Override
  public int getTotalFields() {
    return 1;
  }

  @Override
  public Class<Block> getTypeClass() {
    return Block.class;
  }

  @Override
  public boolean isKeyType() {
    return false;
  }

  // Flink 1 asks for a serializer by the second method, Flink 2 by the first, and 2 does not have the second: so neither
  // is marked as an override.

  public TypeSerializer<Block> createSerializer(SerializerConfig config) {
    return BlockSerializer.INSTANCE;
  }

  @SuppressWarnings("deprecation") // in Flink 1, which still wants it
  public TypeSerializer<Block> createSerializer(ExecutionConfig config) {
    return BlockSerializer.INSTANCE;
  }

  @Override
  public String toString() {
    return "Block";
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof BlockType;
  }

  @Override
  public int hashCode() {
    return BlockType.class.hashCode();
  }

  @Override
  public boolean canEqual(Object other) {
    return other instanceof BlockType;
  }
}
