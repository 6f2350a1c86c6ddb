"""Kafka in, windows, a GroupByKey, Kafka out: counts of a topic's records by key and window of their own time.

Each group becomes a record of the other topic, with the group's key, and START COUNT as its value.
"""

import argparse
import logging
import typing

import apache_beam as beam
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.io.kafka import WriteToKafka
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.trigger import AccumulationMode
from apache_beam.transforms.window import FixedWindows


def count(group, window=beam.DoFn.WindowParam) -> typing.Tuple[bytes, bytes]:
  key, values = group
  return key, b'%d %d' % (window.start.micros // 1000000, sum(1 for _ in values))


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--bootstrap', required=True)
  parser.add_argument('--topic', required=True)
  parser.add_argument('--out', required=True)
  parser.add_argument('--policy', required=True, help="what time is a record's, as KafkaIO's timestamp policies are called")
  parser.add_argument('--window', type=int, required=True, help='seconds')
  parser.add_argument('--lateness', type=int, default=0, help='seconds; each late record has its group told again, with all it has')
  parser.add_argument('--group', required=True)
  parser.add_argument('--expansion_service', required=True)
  args, rest = parser.parse_known_args()
  servers = {'bootstrap.servers': args.bootstrap}
  with beam.Pipeline(options=PipelineOptions(rest, streaming=True)) as p:
    _ = (
        p
        | ReadFromKafka(
            dict(servers, **{'group.id': args.group, 'auto.offset.reset': 'earliest', 'enable.auto.commit': 'false'}),
            [args.topic],
            timestamp_policy=args.policy,
            commit_offset_in_finalize=True,
            expansion_service=args.expansion_service)
        | beam.WindowInto(FixedWindows(args.window), allowed_lateness=args.lateness, accumulation_mode=AccumulationMode.ACCUMULATING)
        | beam.GroupByKey()
        | beam.Map(count)
        | WriteToKafka(servers, args.out, expansion_service=args.expansion_service))


if __name__ == '__main__':
  logging.getLogger().setLevel(logging.INFO)
  main()
