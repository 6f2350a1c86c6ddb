package urn

// What harnesses report: MonitoringInfoSpecs in metrics.proto.
const (
	MetricUserSumInt64           = "beam:metric:user:sum_int64:v1"
	MetricUserSumDouble          = "beam:metric:user:sum_double:v1"
	MetricUserDistributionInt64  = "beam:metric:user:distribution_int64:v1"
	MetricUserDistributionDouble = "beam:metric:user:distribution_double:v1"
	MetricUserLatestInt64        = "beam:metric:user:latest_int64:v1"
	MetricUserLatestDouble       = "beam:metric:user:latest_double:v1"
	MetricUserTopNInt64          = "beam:metric:user:top_n_int64:v1"
	MetricUserTopNDouble         = "beam:metric:user:top_n_double:v1"
	MetricUserBottomNInt64       = "beam:metric:user:bottom_n_int64:v1"
	MetricUserBottomNDouble      = "beam:metric:user:bottom_n_double:v1"
	MetricUserSetString          = "beam:metric:user:set_string:v1"
	MetricUserBoundedTrie        = "beam:metric:user:bounded_trie:v1"
	MetricUserHistogram          = "beam:metric:user:histogram_int64:v1"
	MetricElementCount           = "beam:metric:element_count:v1"
	MetricSampledByteSize        = "beam:metric:sampled_byte_size:v1"
	MetricStartBundleMsecs       = "beam:metric:pardo_execution_time:start_bundle_msecs:v1"
	MetricProcessBundleMsecs     = "beam:metric:pardo_execution_time:process_bundle_msecs:v1"
	MetricFinishBundleMsecs      = "beam:metric:pardo_execution_time:finish_bundle_msecs:v1"
	MetricTotalMsecs             = "beam:metric:ptransform_execution_time:total_msecs:v1"
	MetricWorkRemaining          = "beam:metric:ptransform_progress:remaining:v1"
	MetricWorkCompleted          = "beam:metric:ptransform_progress:completed:v1"
	MetricDataChannelReadIndex   = "beam:metric:data_channel:read_index:v1"
	MetricAPIRequestCount        = "beam:metric:io:api_request_count:v1"
	MetricAPIRequestLatencies    = "beam:metric:io:api_request_latencies:v1"
)

// How a metric's payload is encoded and combined: MonitoringInfoTypeUrns in metrics.proto.
const (
	MetricTypeSumInt64           = "beam:metrics:sum_int64:v1"
	MetricTypeSumDouble          = "beam:metrics:sum_double:v1"
	MetricTypeDistributionInt64  = "beam:metrics:distribution_int64:v1"
	MetricTypeDistributionDouble = "beam:metrics:distribution_double:v1"
	MetricTypeLatestInt64        = "beam:metrics:latest_int64:v1"
	MetricTypeLatestDouble       = "beam:metrics:latest_double:v1"
	MetricTypeTopNInt64          = "beam:metrics:top_n_int64:v1"
	MetricTypeTopNDouble         = "beam:metrics:top_n_double:v1"
	MetricTypeBottomNInt64       = "beam:metrics:bottom_n_int64:v1"
	MetricTypeBottomNDouble      = "beam:metrics:bottom_n_double:v1"
	MetricTypeProgress           = "beam:metrics:progress:v1"
	MetricTypeSetString          = "beam:metrics:set_string:v1"
	MetricTypeBoundedTrie        = "beam:metrics:bounded_trie:v1"
	MetricTypeHistogramInt64     = "beam:metrics:histogram_int64:v1"
)
