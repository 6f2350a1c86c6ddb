// Package plantest writes pipelines as text, for tests. One line is one declaration; "#" starts a comment.
//
//	env NAME [cap=URN]… [hint=[KIND:]TEXT]…   an environment; "sdk" is there from the start and is the default; KIND is min_ram_bytes, cpu_count, accelerator, …
//	window NAME [fn=KIND] [merge=needs|done|none] [trigger=T] [coder=C] [lateness=MS] [closing=always] [ontime=always] [mode=accumulating|retracting] [time=earliest|latest] [env=NAME]
//	                                      KIND is fixed or sliding (of 10 ms, every 5), sessions (10 ms apart), or a URN
//	coder NAME URN [NAME]…                a coder with components; any may be missing, or it may contain itself
//	require URN                           a requirement of the pipeline's
//	contain COMPOSITE NAME                a transform as a sub-transform of one more composite
//	unroot NAME                           a root transform that is none any more
//	drop transform|pcollection|coder|window|env NAME
//
//	KIND NAME(INPUT, …) > OUTPUT, … [OPTION]…
//	composite NAME(INPUT, …) > OUTPUT, … [urn=URN] {
//	  …
//	}
//
// KIND is impulse, pardo, gbk, flatten, reshuffle, redistribute, window_into, combine (combine_per_key), precombine, merge,
// extract, grouped (combine_grouped_values), pair, split, process, or leaf with urn=URN. INPUT is a PCollection, or
// TAG=PCOLLECTION for a side input, with "/multimap" behind it where it is read by key. OUTPUT is NAME, NAME:CODER, and
// either with @WINDOW and ~ (unbounded) behind it; what is left out comes from the first input. A coder is written bytes,
// kv(string, varint), lp(X), iterable(X), …; a name that means nothing is a coder that only its SDK knows.
//
// Options are env=NAME, restriction=CODER, acc=CODER, urn=URN, state[=bag, multimap, list], timers[=processing, both], and
// the flags stable, sorted, finalize, expiry.
package plantest
