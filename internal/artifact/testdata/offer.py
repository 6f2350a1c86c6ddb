# Stages with the Python SDK's own client: offer.py ENDPOINT TOKEN. Asked for by real_test.go.
import os
import sys
import traceback

import grpc
from apache_beam.portability.api import beam_artifact_api_pb2_grpc
from apache_beam.runners.portability import artifact_service

endpoint, token = sys.argv[1:]
status = 0
try:
    with grpc.insecure_channel(endpoint) as channel:
        artifact_service.offer_artifacts(
            beam_artifact_api_pb2_grpc.ArtifactStagingServiceStub(channel),
            artifact_service.ArtifactRetrievalService(artifact_service.BeamFilesystemHandler(None).file_reader),
            token,
        )
except BaseException:
    traceback.print_exc()
    status = 1
# The interpreter's own end may wait for ever: gRPC drops the failed call then, for which it takes a lock that a thread
# which is no more may hold (_ChannelCallState.__del__).
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
