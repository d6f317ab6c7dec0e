// Points at which a test lets the process die as a power cut would, to see what is left and that
// the work goes on. They exist only in builds that ask for them (CMake's VALUESCOPE_FAILPOINTS); in
// any other nothing of them is left, not even their names.
//
//   VALUESCOPE_FAILPOINT=NAME:COUNT      SIGKILL where NAME is reached for the COUNT-th time
//   VALUESCOPE_FAILPOINT_TRACE=FILE      the name of each point that is reached is added, a line
//   each
#ifndef VALUESCOPE_BASE_FAILPOINT_H_
#define VALUESCOPE_BASE_FAILPOINT_H_

namespace valuescope {

#ifdef VALUESCOPE_FAILPOINTS
inline constexpr bool kFailpoints = true;
void ReachFailpoint(const char* name);
#define VS_FAILPOINT(name) ::valuescope::ReachFailpoint(name)
#else
inline constexpr bool kFailpoints = false;
#define VS_FAILPOINT(name) static_cast<void>(0)
#endif

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_FAILPOINT_H_
