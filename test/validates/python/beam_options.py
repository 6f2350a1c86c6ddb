"""A pytest plugin with what the tests need of Beam's conftest.py, which is not in the wheel."""
from apache_beam.options import pipeline_options
from apache_beam.testing.test_pipeline import TestPipeline


def pytest_addoption(parser):
  parser.addoption('--test-pipeline-options', default='', help='options of every pipeline')


def pytest_configure(config):
  TestPipeline.pytest_test_pipeline_options = config.getoption('test_pipeline_options')
  # Beam runs its tests with all type checks.
  pipeline_options.enable_all_additional_type_checks()
