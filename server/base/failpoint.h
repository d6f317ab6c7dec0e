// Points at which a test lets the process die as a power cut would, to see what is left and that
// the work goes on. They exist only in sources that a test compiles anew with VALUESCOPE_FAILPOINTS
// (tests/jobs/failpoint_test.cc); in the libraries nothing of them is left, not even their names.
//
//   VALUESCOPE_FAILPOINT=NAME:COUNT      SIGKILL where NAME is reached for the COUNT-th time
//   VALUESCOPE_FAILPOINT_TRACE=FILE      the name of each point that is reached is added, a line
//   each
#ifndef VALUESCOPE_BASE_FAILPOINT_H_
#define VALUESCOPE_BASE_FAILPOINT_H_

namespace valuescope {

#ifdef VALUESCOPE_FAILPOINTS
void ReachFailpoint(const char* name);
#define VS_FAILPOINT(name) ::valuescope::ReachFailpoint(name)
#else
#define VS_FAILPOINT(name) static_cast<void>(0)
#endif

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_FAILPOINT_H_
