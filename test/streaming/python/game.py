"""Beam's game examples as they are, with Kafka where they have Pub/Sub, text files and BigQuery.

    game.py EXAMPLE --bootstrap=… --topic=… --out=… --expansion_service=… [the example's own options]

EXAMPLE is hourly_team_score, leader_board or game_stats of apache_beam.examples.complete.game. Its own run() makes and
runs the pipeline; replaced are only what it reads with (a topic's values, with the times of their records) and what it
writes with: each row of a table becomes a record of the topic OUT, the table's name its key, the row as JSON its value.
"""

import argparse
import importlib
import json
import logging
import typing

import apache_beam as beam
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.io.kafka import WriteToKafka


class ReadEvents(beam.PTransform):
  """Takes the place of ReadFromPubSub, and of ReadFromText, which gives strings."""
  def __init__(self, kafka, text):
    super().__init__()
    self.kafka = kafka
    self.text = text

  def expand(self, p):
    values = (
        p
        | ReadFromKafka({'bootstrap.servers': self.kafka.bootstrap, 'auto.offset.reset': 'earliest'},
                        [self.kafka.topic],
                        timestamp_policy=ReadFromKafka.create_time_policy,
                        expansion_service=self.kafka.expansion_service)
        | beam.Map(lambda kv: kv[1]).with_output_types(bytes))
    return values | beam.Map(bytes.decode).with_output_types(str) if self.text else values


class WriteRows(beam.PTransform):
  """Takes the place of the examples' WriteToBigQuery, and has its arguments."""
  kafka = None

  def __init__(self, table_name, dataset, schema, project):
    super().__init__()
    self.table = table_name
    self.columns = list(schema)

  def expand(self, rows):
    table, columns = self.table.encode(), self.columns

    def record(row) -> typing.Tuple[bytes, bytes]:
      return table, json.dumps({c: row[c] for c in columns}).encode()

    return (
        rows
        | beam.Map(record)
        | WriteToKafka({'bootstrap.servers': self.kafka.bootstrap}, self.kafka.out, expansion_service=self.kafka.expansion_service))


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('example')
  parser.add_argument('--bootstrap', required=True)
  parser.add_argument('--topic', required=True)
  parser.add_argument('--out', required=True)
  parser.add_argument('--expansion_service', required=True)
  kafka, rest = parser.parse_known_args()
  example = importlib.import_module('apache_beam.examples.complete.game.' + kafka.example)
  WriteRows.kafka = kafka
  example.WriteToBigQuery = WriteRows
  beam.io.ReadFromPubSub = lambda topic: ReadEvents(kafka, text=False)
  beam.io.ReadFromText = lambda path: ReadEvents(kafka, text=True)
  if kafka.example != 'hourly_team_score':
    rest.append('--topic=' + kafka.topic)
  # The example's functions are in a module that workers have; there is no session to save.
  example.run(rest + ['--dataset=none', '--project=none', '--streaming'], save_main_session=False)


if __name__ == '__main__':
  logging.getLogger().setLevel(logging.INFO)
  main()
