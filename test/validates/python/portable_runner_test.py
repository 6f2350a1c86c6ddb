"""The suite that Beam's portable runners subclass, for the server at JOB_ENDPOINT in the MODE default, streaming or raw.

With the ENVIRONMENT_TYPE LOOPBACK the test's process is the worker, too.
"""
import os

from apache_beam.options.pipeline_options import DebugOptions
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.options.pipeline_options import WorkerOptions
from apache_beam.runners.portability import portable_runner_test


class TrestleTest(portable_runner_test.PortableRunnerTest):
  @classmethod
  def _create_job_endpoint(cls):
    return os.environ['JOB_ENDPOINT']

  def create_options(self):
    options = super().create_options()
    portable = options.view_as(PortableOptions)
    portable.environment_type = os.environ['ENVIRONMENT_TYPE']
    portable.environment_config = os.environ.get('ENVIRONMENT_CONFIG')
    mode = os.environ['MODE']
    if mode == 'streaming':
      options.view_as(StandardOptions).streaming = True
      # What the harness keeps of state and side inputs from bundle to bundle: none, unless it is asked for.
      options.view_as(WorkerOptions).max_cache_memory_usage_mb = 100
    elif mode == 'raw':
      options.view_as(DebugOptions).add_experiment('pre_optimize=none')
    elif mode != 'default':
      raise ValueError('no mode is called %r' % mode)
    return options


# Or pytest collects the classes that it brings.
del portable_runner_test
