// Recording a device's work, to launch it again as one: the hundreds of small operators of a decode
// step then cost the host one call.
#ifndef VALUESCOPE_ENGINE_WORK_RECORDER_H_
#define VALUESCOPE_ENGINE_WORK_RECORDER_H_

#include <functional>
#include <memory>

namespace valuescope::engine {

class RecordedWork {
 public:
  virtual ~RecordedWork() = default;

  // Does the work once more, with what stands at the same addresses now, and leaves its results
  // where the recording left them.
  virtual void Repeat() = 0;
};

class WorkRecorder {
 public:
  virtual ~WorkRecorder() = default;

  // What `work` launches on the calling thread's stream is recorded and not done. Memory that it
  // allocates belongs to the recordings of this recorder: one overwrites what another left there.
  // Throws what the operators throw; then nothing is recorded.
  virtual std::unique_ptr<RecordedWork> Record(const std::function<void()>& work) = 0;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_WORK_RECORDER_H_
