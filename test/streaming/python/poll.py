"""A pipeline whose source polls: a splittable DoFn that looks for new readings, reports those that are due, puts off
the rest, and does so until it has made as many polls as it was asked for.

With --until, it polls until that file says of how many polls there are: a number, which is larger than that of the
polls so far.

Each poll gives KEYS readings, of keys in turn, all of the moment at which the poll was due. They are counted by key and
window of WINDOW seconds; and a running total by key is kept in state for the whole time. Both are written as lines:

    window KEY START COUNT
    total KEY COUNT
"""

import argparse
import logging
import os
import time

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.io.restriction_trackers import OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.transforms.userstate import TimerSpec
from apache_beam.transforms.userstate import on_timer
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.window import FixedWindows
from apache_beam.transforms.window import GlobalWindow
from apache_beam.transforms.window import GlobalWindows
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration
from apache_beam.utils.timestamp import Timestamp

ALL_KEYS = 100


class Schedule(RestrictionProvider):
  """A restriction is a range of polls. It is in one piece: a poller has one place where it is."""
  def initial_restriction(self, element):
    return OffsetRange(0, element['polls'])

  def create_tracker(self, restriction):
    return OffsetRestrictionTracker(restriction)

  def restriction_size(self, element, restriction):
    return restriction.size()

  def split(self, element, restriction):
    yield restriction


class Poll(beam.DoFn):
  @beam.DoFn.unbounded_per_element()
  def process(
      self,
      element,
      tracker=beam.DoFn.RestrictionParam(Schedule()),
      watermark=beam.DoFn.WatermarkEstimatorParam(
          ManualWatermarkEstimator.default_provider())):
    poll = tracker.current_restriction().start
    while True:
      if element['until'] and os.path.exists(element['until']):
        with open(element['until']) as f:
          if poll >= int(f.read()):
            # What is not within the restriction is its end.
            tracker.try_claim(tracker.current_restriction().stop)
            return
      due = element['start'] + poll * element['every']
      left = due - time.time()
      if left > 0:
        tracker.defer_remainder(Duration(left))
        return
      if not tracker.try_claim(poll):
        return
      at = Timestamp(due)
      for i in range(element['keys']):
        yield TimestampedValue('k%02d' % ((poll * element['keys'] + i) % ALL_KEYS), at)
      watermark.set_watermark(at)
      poll += 1


class Write(beam.DoFn):
  """Appends lines to a file, each in one write."""
  def __init__(self, path):
    self.path = path

  def process(self, line):
    with open(self.path, 'a') as f:
      f.write(line + '\n')


class Total(beam.DoFn):
  """Keeps the sum by key for ever, and tells it at the end of time."""
  SUM = ReadModifyWriteStateSpec('sum', VarIntCoder())
  END = TimerSpec('end', TimeDomain.WATERMARK)

  def process(
      self,
      element,
      total=beam.DoFn.StateParam(SUM),
      end=beam.DoFn.TimerParam(END)):
    total.write((total.read() or 0) + element[1])
    end.set(GlobalWindow().max_timestamp())

  @on_timer(END)
  def tell(self, key=beam.DoFn.KeyParam, total=beam.DoFn.StateParam(SUM)):
    yield 'total %s %d' % (key, total.read())


def window_line(kv, window=beam.DoFn.WindowParam):
  return 'window %s %d %d' % (kv[0], window.start.micros // 1000000, kv[1])


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--polls', type=int, default=1 << 40)
  parser.add_argument('--until', default='', help='a file that will say how many polls there are')
  parser.add_argument('--every', type=float, required=True, help='seconds')
  parser.add_argument('--keys', type=int, default=10)
  parser.add_argument('--window', type=int, default=10, help='seconds')
  parser.add_argument('--start', type=float, required=True, help='when the first poll is due, Unix time')
  parser.add_argument('--out', required=True)
  args, rest = parser.parse_known_args()
  plan = {'polls': args.polls, 'every': args.every, 'keys': args.keys, 'start': args.start, 'until': args.until}
  with beam.Pipeline(options=PipelineOptions(rest, streaming=True, save_main_session=True)) as p:
    counts = (
        p
        | beam.Create([plan])
        | beam.ParDo(Poll())
        | beam.WindowInto(FixedWindows(args.window))
        | beam.Map(lambda key: (key, 1))
        | beam.CombinePerKey(sum))
    _ = counts | 'WindowLine' >> beam.Map(window_line) | 'WriteWindows' >> beam.ParDo(Write(args.out))
    _ = (
        counts
        | 'AllTime' >> beam.WindowInto(GlobalWindows())
        | beam.ParDo(Total())
        | 'WriteTotals' >> beam.ParDo(Write(args.out)))


if __name__ == '__main__':
  logging.getLogger().setLevel(logging.INFO)
  main()
