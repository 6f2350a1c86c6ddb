# Tells what trestle boot needs to know of the Python that runs this. It imports nothing heavy.
import importlib.metadata
import importlib.util
import json
import os
import sys
import sysconfig


def there(module):
  return importlib.util.find_spec(module) is not None


try:
  beam_version = importlib.metadata.version('apache-beam')
except importlib.metadata.PackageNotFoundError:
  beam_version = ''

print(
    json.dumps({
        'beam': there('apache_beam'),
        'beam_version': beam_version,
        'version': '%d.%d' % sys.version_info[:2],
        'tag': 'cp%d%d' % sys.version_info[:2],
        'pip': there('pip'),
        'setuptools': there('setuptools'),
        'sites': [
            os.path.abspath(p) for p in sys.path
            if os.path.basename(p) in ('site-packages', 'dist-packages') and os.path.isdir(p)
        ],
        'purelib': sysconfig.get_path('purelib'),
    }))
