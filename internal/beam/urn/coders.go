package urn

// Coders that all SDKs agree on: StandardCoders in beam_runner_api.proto.
const (
	CoderBytes               = "beam:coder:bytes:v1"
	CoderStringUTF8          = "beam:coder:string_utf8:v1"
	CoderKV                  = "beam:coder:kv:v1"
	CoderBool                = "beam:coder:bool:v1"
	CoderVarInt              = "beam:coder:varint:v1"
	CoderDouble              = "beam:coder:double:v1"
	CoderIterable            = "beam:coder:iterable:v1"
	CoderTimer               = "beam:coder:timer:v1"
	CoderIntervalWindow      = "beam:coder:interval_window:v1"
	CoderLengthPrefix        = "beam:coder:length_prefix:v1"
	CoderGlobalWindow        = "beam:coder:global_window:v1"
	CoderWindowedValue       = "beam:coder:windowed_value:v1"
	CoderParamWindowedValue  = "beam:coder:param_windowed_value:v1"
	CoderStateBackedIterable = "beam:coder:state_backed_iterable:v1"
	CoderCustomWindow        = "beam:coder:custom_window:v1"
	CoderRow                 = "beam:coder:row:v1"
	CoderShardedKey          = "beam:coder:sharded_key:v1"
	CoderNullable            = "beam:coder:nullable:v1"
)

// coderArity is the number of component coders of each coder whose encoding Trestle can walk without the SDK. Row is not
// among them: its encoding depends on a schema that may hold types which only the SDK knows, so that it is treated as a
// coder of the SDK's.
var coderArity = map[string]int{
	CoderBytes:               0,
	CoderStringUTF8:          0,
	CoderKV:                  2,
	CoderBool:                0,
	CoderVarInt:              0,
	CoderDouble:              0,
	CoderIterable:            1,
	CoderTimer:               2,
	CoderIntervalWindow:      0,
	CoderLengthPrefix:        1,
	CoderGlobalWindow:        0,
	CoderWindowedValue:       2,
	CoderParamWindowedValue:  2,
	CoderStateBackedIterable: 1,
	CoderCustomWindow:        1,
	CoderShardedKey:          1,
	CoderNullable:            1,
}

// KnownCoder tells whether Trestle can find the end of a value of this coder, given that it knows the component coders.
// Values of any other coder have to cross from one stage to another in a length prefix.
func KnownCoder(urn string) bool {
	_, ok := coderArity[urn]
	return ok
}

// CoderArity is the number of component coders that a known coder has (the "Components" of StandardCoders).
func CoderArity(urn string) (n int, known bool) {
	n, known = coderArity[urn]
	return n, known
}
