"""One key with many large values, which a DoFn iterates twice: what no bundle can hold in memory.

The counts of both passes are checked inside the pipeline, so that a wrong one fails the job.
"""
import argparse

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

SHARDS = 20


def generate(shard, records, size):
  value = bytes(range(256)) * (size // 256 + 1)
  for i in range(shard * records // SHARDS, (shard + 1) * records // SHARDS):
    yield 'key', i.to_bytes(8, 'big') + value[:size - 8]


def read_twice(group, records, size):
  _, values = group
  for attempt in ('first', 'second'):
    count = length = 0
    for value in values:
      count += 1
      length += len(value)
    if (count, length) != (records, records * size):
      raise ValueError(f'{attempt} pass: {count} values, {length} bytes')


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--records', type=int, required=True)
  parser.add_argument('--bytes', type=int, required=True)
  known, rest = parser.parse_known_args()
  with beam.Pipeline(options=PipelineOptions(rest)) as p:
    _ = (
        p
        | beam.Create(range(SHARDS))
        | beam.FlatMap(generate, known.records, known.bytes)
        | beam.GroupByKey()
        | beam.Map(read_twice, known.records, known.bytes))


if __name__ == '__main__':
  main()
