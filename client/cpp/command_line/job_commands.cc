#include <google/protobuf/util/json_util.h>

#include <filesystem>
#include <iostream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "arguments.h"
#include "commands.h"
#include "job_list.h"
#include "job_progress.h"
#include "output.h"
#include "output_file.h"
#include "pages.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

std::string StateText(v1::JobState state) {
  return LowerWithoutPrefix(v1::JobState_Name(state), "JOB_STATE_");
}

std::string DoneText(const v1::JobProgress& progress) {
  return absl::StrCat(progress.done(), "/", progress.total());
}

void PrintJobs(const std::vector<v1::Job>& jobs) {
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "KIND", "STATE", "DONE", "CREATED", "NAME", "WAITS FOR"}};
  for (const v1::Job& job : jobs) {
    rows.push_back({job.name(), job.kind(), StateText(job.state()), DoneText(job.progress()),
                    MomentText(job.create_time()), job.display_name(), job.waiting_for()});
  }
  PrintTable(rows);
}

// Jobs that it is made of, in the order in which they began; nothing where there are none.
void PrintParts(const google::protobuf::RepeatedPtrField<v1::ChildJob>& parts) {
  if (parts.empty()) return;
  std::vector<std::vector<std::string>> rows = {{"PART", "STATE", "DONE", "OF", "JOB"}};
  for (const v1::ChildJob& part : parts) {
    rows.push_back({part.phase(), StateText(part.state()), DoneText(part.progress()),
                    part.progress().unit(), part.job()});
  }
  std::cout << "\n";
  PrintTable(rows);
}

std::string LostText(const absl::Status& why) {
  return absl::StrCat("the server is away (", why.message(), "); waiting for it");
}

void PrintEstimate(const v1::JobEstimate& estimate) {
  std::vector<std::vector<std::string>> rows = {
      {"tokens", absl::StrCat(estimate.tokens())},
      {"forward passes", absl::StrCat(estimate.forwards())},
      {"bytes of artifacts", absl::StrCat(estimate.bytes())},
      {"seconds alone", absl::StrCat(estimate.duration().seconds())},
      {"shards", absl::StrCat(estimate.shards())}};
  if (estimate.scratch_bytes() > 0) {
    rows.push_back({"bytes of scratch disk", absl::StrCat(estimate.scratch_bytes())});
  }
  PrintTable(rows);
}

void PrintJob(const Globals& globals, const v1::Job& job) {
  if (globals.json) return PrintJson(job);
  PrintJobs({job});
  if (job.has_error()) std::cout << "error: " << job.error().message() << "\n";
  for (const v1::JobArtifact& artifact : job.result().artifacts()) {
    std::cout << artifact.role() << ": " << artifact.artifact() << "\n";
  }
  for (const std::string& vector : job.result().vectors()) {
    std::cout << "vector: " << vector << "\n";
  }
  for (const std::string& set : job.result().neuron_sets()) {
    std::cout << "neuron set: " << set << "\n";
  }
  PrintParts(job.children());
}

}  // namespace

int CreateJob(const Globals& globals, Client& client, v1::JobSpec spec,
              const std::string& display_name, const JobFlags& flags) {
  v1::CreateJobRequest request;
  request.set_validate_only(flags.validate_only);
  request.set_display_name(display_name);
  request.set_priority(flags.priority);
  *request.mutable_spec() = std::move(spec);
  const auto response = client.CreateJob(request);
  if (!response.ok()) return Fail(response.status());
  if (flags.validate_only) {
    if (globals.json) {
      PrintJson(response->estimate());
    } else {
      PrintEstimate(response->estimate());
    }
    return kOk;
  }
  if (flags.watch) return WatchJob(globals, response->job().name());
  if (globals.json) {
    PrintJson(response->job());
  } else {
    std::cout << response->job().name() << "\n";
  }
  return kOk;
}

int SubmitJob(const Globals& globals, const SubmitFlags& flags) {
  const absl::StatusOr<std::string> text = ReadFile(flags.path);
  if (!text.ok()) return FailUsage(text.status());
  v1::JobSpec spec;
  if (const auto parsed = google::protobuf::util::JsonStringToMessage(*text, &spec); !parsed.ok()) {
    return FailUsage(absl::InvalidArgumentError(absl::StrCat(
        flags.path, " is not the JSON mapping of JobSpec: ", std::string(parsed.message()))));
  }
  Client client = globals.Connect();
  return CreateJob(globals, client, std::move(spec), flags.display_name, flags.job);
}

int GetJob(const Globals& globals, const std::string& name) {
  v1::GetJobRequest request;
  request.set_name(ResourceName("jobs", name));
  Client client = globals.Connect();
  const auto response = client.GetJob(request);
  if (!response.ok()) return Fail(response.status());
  PrintJob(globals, response->job());
  return kOk;
}

int ListJobs(const Globals& globals, const JobListFlags& flags) {
  const auto wanted = ListRequestOf(flags, absl::Now());
  if (!wanted.ok()) return FailUsage(wanted.status());
  Client client = globals.Connect();
  const auto jobs = AllPages<v1::Job>(
      *wanted, [&](const auto& request) { return client.ListJobs(request); },
      [](const auto& page) { return page.jobs(); });
  if (!jobs.ok()) return Fail(jobs.status());
  if (globals.json) return PrintJsonLines(*jobs);
  PrintJobs(*jobs);
  return kOk;
}

int WatchJob(const Globals& globals, const std::string& name) {
  v1::WatchJobRequest request;
  request.set_name(ResourceName("jobs", name));
  Client client = globals.Connect();
  JobProgressLine line;
  CallOptions options;
  if (globals.timeout_seconds > 0) options.timeout = absl::Seconds(globals.timeout_seconds);
  JobWatch watch =
      client.FollowJob(request, options, [&](const absl::Status& why) { line.Say(LostText(why)); });
  v1::WatchJobResponse change;
  v1::Job job;
  while (watch.Read(&change)) {
    job = change.job();
    if (globals.json) {
      PrintJson(job);
    } else {
      line.Update(job);
    }
  }
  line.Finish();
  if (const absl::Status status = watch.Finish(); !status.ok()) return Fail(status);
  const int code = globals.json ? kOk : GetJob(globals, name);
  return job.state() == v1::JOB_STATE_SUCCEEDED ? code : kServerError;
}

int DownloadJob(const Globals& globals, const DownloadFlags& flags) {
  std::error_code made;
  std::filesystem::create_directories(flags.folder, made);
  if (made) {
    return FailUsage(
        absl::InvalidArgumentError(absl::StrCat("cannot make the folder '", flags.folder, "'")));
  }
  v1::GetJobRequest request;
  request.set_name(ResourceName("jobs", flags.name));
  Client client = globals.Connect();
  const auto response = client.GetJob(request);
  if (!response.ok()) return Fail(response.status());
  if (response->job().state() != v1::JOB_STATE_SUCCEEDED) {
    return Fail(absl::FailedPreconditionError(
        absl::StrCat("`", request.name(), "` has not succeeded, so it left nothing")));
  }
  for (const v1::JobArtifact& artifact : response->job().result().artifacts()) {
    const std::filesystem::path name = std::filesystem::path(artifact.display_name()).filename();
    const std::string path = (std::filesystem::path(flags.folder) / name).string();
    OutputFile file(path);
    if (absl::Status status = file.Open(); !status.ok()) return FailUsage(status);
    const auto read = client.ReadArtifact(
        artifact.artifact(), [&](const std::string& bytes) { return file.Write(bytes); });
    if (!read.ok()) return Fail(read.status());
    if (absl::Status status = file.Keep(); !status.ok()) return Fail(status);
    if (globals.json) {
      PrintJson(*read);
    } else {
      std::cout << path << "\n";
    }
  }
  return kOk;
}

int RetryJob(const Globals& globals, const std::string& name) {
  v1::RetryJobRequest request;
  request.set_name(ResourceName("jobs", name));
  Client client = globals.Connect();
  const auto response = client.RetryJob(request);
  if (!response.ok()) return Fail(response.status());
  PrintJob(globals, response->job());
  return kOk;
}

int DeleteJob(const Globals& globals, const std::string& name) {
  v1::DeleteJobRequest request;
  request.set_name(ResourceName("jobs", name));
  Client client = globals.Connect();
  const auto response = client.DeleteJob(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) PrintJson(*response);
  return kOk;
}

int CancelJob(const Globals& globals, const std::string& name) {
  v1::CancelJobRequest request;
  request.set_name(ResourceName("jobs", name));
  Client client = globals.Connect();
  const auto response = client.CancelJob(request);
  if (!response.ok()) return Fail(response.status());
  PrintJob(globals, response->job());
  return kOk;
}

}  // namespace valuescope::command_line
