# Stages with the Python SDK's own client: offer.py ENDPOINT TOKEN. Asked for by real_test.go.
import sys

import grpc
from apache_beam.portability.api import beam_artifact_api_pb2_grpc
from apache_beam.runners.portability import artifact_service

endpoint, token = sys.argv[1:]
with grpc.insecure_channel(endpoint) as channel:
    artifact_service.offer_artifacts(
        beam_artifact_api_pb2_grpc.ArtifactStagingServiceStub(channel),
        artifact_service.ArtifactRetrievalService(artifact_service.BeamFilesystemHandler(None).file_reader),
        token,
    )
