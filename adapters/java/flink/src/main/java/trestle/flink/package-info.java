/**
 * Trestle's jobs as Flink's: each stage is one generic operator that passes blocks to a task in a worker and back. The same
 * sources are compiled for every version of Flink.
 */
package trestle.flink;
