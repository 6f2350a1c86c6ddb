"""Writes python-wordcount.pb and python-sides.pb to the folder given as argument. See README.md."""

import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability import portable_runner


class FormatFn(beam.DoFn):
    def process(self, kv):
        yield '%s: %d' % kv


def wordcount(p):
    (p
     | 'Read' >> beam.io.ReadFromText('in.txt', validate=False)
     | 'Split' >> beam.FlatMap(str.split)
     | 'Pair' >> beam.Map(lambda w: (w, 1)).with_output_types(beam.typehints.Tuple[str, int])
     | 'Count' >> beam.CombinePerKey(sum)
     | 'Format' >> beam.ParDo(FormatFn())
     | 'Write' >> beam.io.WriteToText('out'))


def sides(p):
    a = p | 'A' >> beam.Create([1, 2, 3])
    b = p | 'B' >> beam.Create(['x', 'y'])
    total = a | 'Sum' >> beam.CombineGlobally(sum)
    used = a | 'Use' >> beam.Map(lambda x, y, z: (x, y), beam.pvalue.AsSingleton(total), beam.pvalue.AsList(b))
    groups = ((a | 'K1' >> beam.Map(lambda x: (x, 1)), b | 'K2' >> beam.Map(lambda x: (len(x), 2)))
              | beam.Flatten()
              | beam.GroupByKey())
    groups | 'Values' >> beam.MapTuple(lambda k, v: (k, sum(v)))
    groups | 'AsDict' >> beam.Map(lambda x, y: 1, beam.pvalue.AsDict(used))


for name, build in [('wordcount', wordcount), ('sides', sides)]:
    options = PipelineOptions(['--environment_type=EXTERNAL', '--environment_config=localhost:50000',
                               '--pre_optimize=none'])
    pipeline = beam.Pipeline(options=options, runner='DirectRunner')
    build(pipeline)
    proto = portable_runner.PortableRunner.get_proto_pipeline(pipeline, options)
    for environment in proto.components.environments.values():
        del environment.dependencies[:]  # they name files of the machine
    with open('%s/python-%s.pb' % (sys.argv[1], name), 'wb') as f:
        f.write(proto.SerializeToString(deterministic=True))
