#include "commands.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "arguments.h"
#include "output.h"

namespace valuescope::command_line {
namespace {

std::string Short(const std::string& digest) { return digest.substr(0, 12); }

std::string EnumText(const std::string& name, const std::string& prefix) {
  return LowerWithoutPrefix(name, prefix);
}

// Cancels one call when the process is interrupted. A signal handler may not call gRPC, so a thread
// waits for the signal, which every thread has blocked.
class Interrupt {
 public:
  static Interrupt& Get() {
    static auto* interrupt = new Interrupt();
    return *interrupt;
  }

  void Install() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::thread([this, signals] {
      int signal = 0;
      while (sigwait(&signals, &signal) == 0) OnSignal();
    }).detach();
  }

  void Set(std::function<void()> cancel) {
    absl::MutexLock lock(&mutex_);
    cancel_ = std::move(cancel);
  }

 private:
  void OnSignal() {
    absl::MutexLock lock(&mutex_);
    if (!cancel_) _exit(kInterrupted);
    cancel_();
    cancel_ = nullptr;  // a second Ctrl-C ends at once
  }

  absl::Mutex mutex_;
  std::function<void()> cancel_ ABSL_GUARDED_BY(mutex_);
};

// While it lives, Ctrl-C cancels `stream` instead of ending the process.
template <typename Response>
class CancelOnInterrupt {
 public:
  explicit CancelOnInterrupt(Stream<Response>& stream) {
    Interrupt::Get().Set([&stream] { stream.Cancel(); });
  }
  ~CancelOnInterrupt() { Interrupt::Get().Set(nullptr); }
};

absl::StatusOr<v1::Prompt> MakePrompt(const PromptFlags& flags) {
  std::string text = absl::StrJoin(flags.words, " ");
  if (text == "-") {
    absl::StatusOr<std::string> input = ReadFile("-");
    if (!input.ok()) return input.status();
    text = *std::move(input);
  }
  v1::Prompt prompt;
  if (flags.raw) {
    if (flags.system)
      return absl::InvalidArgumentError("--raw has no chat, so --system means nothing");
    prompt.set_text(text);
    return prompt;
  }
  if (flags.system) {
    v1::Message* system = prompt.mutable_chat()->add_messages();
    system->set_role("system");
    system->set_content(*flags.system);
  }
  v1::Message* user = prompt.mutable_chat()->add_messages();
  user->set_role("user");
  user->set_content(text);
  return prompt;
}

template <typename Request>
absl::Status AddInterventions(const PromptFlags& flags, Request& request) {
  for (const std::string& text : flags.vectors) {
    absl::StatusOr<v1::Intervention> intervention = ParseSteering(text, flags.scope);
    if (!intervention.ok()) return intervention.status();
    *request.add_interventions() = *std::move(intervention);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::StreamGenerateRequest> MakeGenerateRequest(const GenerateFlags& flags) {
  v1::StreamGenerateRequest request;
  request.set_model(ResourceName("models", flags.prompt.model));
  absl::StatusOr<v1::Prompt> prompt = MakePrompt(flags.prompt);
  if (!prompt.ok()) return prompt.status();
  *request.mutable_prompt() = *std::move(prompt);
  v1::SamplingParams& sampling = *request.mutable_sampling();
  sampling.set_max_tokens(flags.max_tokens);
  sampling.set_temperature(flags.temperature);
  sampling.set_top_p(flags.top_p);
  if (flags.seed) sampling.set_seed(*flags.seed);
  for (const std::string& stop : flags.stop) sampling.add_stop(stop);
  sampling.set_ignore_eos(flags.ignore_eos);
  request.set_n(flags.n);
  if (absl::Status status = AddInterventions(flags.prompt, request); !status.ok()) return status;
  return request;
}

// The flat stream request and the unary one have the same fields under the same numbers.
v1::GenerateRequest AsUnary(const v1::StreamGenerateRequest& request) {
  v1::GenerateRequest unary;
  unary.ParseFromString(request.SerializeAsString());
  return unary;
}

void PrintReceipts(const google::protobuf::RepeatedPtrField<v1::InterventionReceipt>& receipts) {
  for (const v1::InterventionReceipt& receipt : receipts) {
    std::cerr << "intervention " << receipt.intervention_index() << " touched "
              << receipt.positions() << " positions of layers "
              << absl::StrJoin(receipt.layers(), ",") << "\n";
  }
}

int PrintStream(Stream<v1::StreamGenerateResponse>& stream, bool many) {
  const CancelOnInterrupt<v1::StreamGenerateResponse> guard(stream);
  int shown = -1;
  v1::StreamGenerateResponse event;
  while (stream.Read(&event)) {
    if (event.has_delta()) {
      // Completions interleave; a header marks every change of the speaker.
      if (many && event.delta().index() != shown && !event.delta().text().empty()) {
        std::cout << (shown < 0 ? "" : "\n") << "[" << event.delta().index() << "] ";
        shown = event.delta().index();
      }
      std::cout << event.delta().text() << std::flush;
    } else if (event.has_completion()) {
      if (!many) std::cout << "\n";
      std::cerr << "completion " << event.completion().index() << ": "
                << EnumText(v1::FinishReason_Name(event.completion().finish_reason()),
                            "FINISH_REASON_")
                << ", seed " << event.completion().seed() << "\n";
      PrintReceipts(event.completion().receipts());
    } else if (event.has_summary()) {
      if (many) std::cout << "\n";
      std::cerr << event.summary().usage().prompt_tokens() << " prompt tokens, "
                << event.summary().usage().generated_tokens() << " generated\n";
    }
  }
  const absl::Status status = stream.Finish();
  if (status.ok()) return kOk;
  std::cout << std::endl;
  return Fail(status);
}

// Uploads a local file, or passes the name of an artifact through.
absl::StatusOr<std::string> DataSetArtifact(Client& client, const std::string& data_set) {
  if (absl::StartsWith(data_set, "artifacts/")) return data_set;
  const absl::StatusOr<std::string> bytes = ReadFile(data_set);
  if (!bytes.ok()) return bytes.status();
  v1::WriteArtifactHeader header;
  header.set_media_type("application/x-ndjson");
  header.set_display_name(data_set.substr(data_set.find_last_of('/') + 1));
  absl::StatusOr<v1::Artifact> artifact = client.WriteArtifact(*bytes, header);
  if (!artifact.ok()) return artifact.status();
  return artifact->name();
}

absl::StatusOr<v1::AttributeNeuronsRequest> MakeAttribution(Client& client,
                                                            const AttributeFlags& flags) {
  v1::AttributeNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.set_vector(ResourceName("vectors", flags.vector));
  request.mutable_direct_contribution();
  absl::StatusOr<v1::Layers> layers = ParseLayers(flags.layers);
  if (!layers.ok()) return layers.status();
  *request.mutable_layers() = *std::move(layers);
  absl::StatusOr<std::string> artifact = DataSetArtifact(client, flags.data_set);
  if (!artifact.ok()) return artifact.status();
  request.set_artifact(*std::move(artifact));
  return request;
}

void PrintNeuronSet(const v1::NeuronSet& set) {
  std::cout << set.name() << "  " << set.method() << "\n";
  std::vector<std::vector<std::string>> rows = {{"LAYER", "MEMBERS", "CLASSES", "SCORE SUM"}};
  for (const v1::NeuronSetLayer& layer : set.layers()) {
    std::vector<std::string> classes;
    for (const v1::NeuronClassCount& count : layer.classes()) {
      if (count.count() == 0) continue;
      classes.push_back(absl::StrCat(
          EnumText(v1::NeuronClass_Name(count.class_()), "NEURON_CLASS_"), " ", count.count()));
    }
    rows.push_back({absl::StrCat(layer.layer()), absl::StrCat(layer.num_members()),
                    absl::StrJoin(classes, ", "), absl::StrFormat("%.4g", layer.score_sum())});
  }
  PrintTable(rows);
  std::vector<std::vector<std::string>> top = {{"NEURON", "SCORE", "CLASS"}};
  for (int i = 0; i < std::min(20, set.top_size()); ++i) {
    const v1::NeuronScore& neuron = set.top(i);
    top.push_back({absl::StrCat(neuron.layer(), ".", neuron.index()),
                   absl::StrFormat("%.5g", neuron.score()),
                   EnumText(v1::NeuronClass_Name(neuron.class_()), "NEURON_CLASS_")});
  }
  std::cout << "\n";
  PrintTable(top);
}

void PrintJobs(const std::vector<v1::Job>& jobs) {
  std::vector<std::vector<std::string>> rows = {{"JOB", "KIND", "STATE", "DONE", "NAME"}};
  for (const v1::Job& job : jobs) {
    rows.push_back({job.name(), job.kind(), EnumText(v1::JobState_Name(job.state()), "JOB_STATE_"),
                    absl::StrCat(job.progress().done(), "/", job.progress().total()),
                    job.display_name()});
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
  for (const std::string& set : job.result().neuron_sets())
    std::cout << "neuron set: " << set << "\n";
}

// Fetches every page of a list; `items` picks the repeated field of a response.
template <typename Item, typename Request, typename Fetch, typename Items>
absl::StatusOr<std::vector<Item>> AllPages(Request request, Fetch fetch, Items items) {
  std::vector<Item> all;
  for (;;) {
    const auto page = fetch(request);
    if (!page.ok()) return page.status();
    const auto& found = items(*page);
    all.insert(all.end(), found.begin(), found.end());
    if (page->next_page_token().empty()) return all;
    request.set_page_token(page->next_page_token());
  }
}

// Prints messages as JSON lines, one a message.
template <typename Message>
int PrintJsonLines(const std::vector<Message>& messages) {
  for (const Message& message : messages) PrintJson(message);
  return kOk;
}

double Norm(std::span<const float> elements) {
  double sum = 0;
  for (const float element : elements) sum += static_cast<double>(element) * element;
  return std::sqrt(sum);
}

}  // namespace

Client Globals::Connect() const {
  ClientOptions options;
  options.token = token;
  if (timeout_seconds > 0) options.timeout = absl::Seconds(timeout_seconds);
  return Client(server, std::move(options));
}

void InstallInterruptHandler() { Interrupt::Get().Install(); }

int ListModels(const Globals& globals) {
  Client client = globals.Connect();
  const auto models = AllPages<v1::Model>(
      v1::ListModelsRequest(), [&](const auto& request) { return client.ListModels(request); },
      [](const auto& page) { return page.models(); });
  if (!models.ok()) return Fail(models.status());
  if (globals.json) return PrintJsonLines(*models);
  std::vector<std::vector<std::string>> rows = {
      {"MODEL", "STATE", "FAMILY", "LAYERS", "HIDDEN", "NEURONS", "DTYPE", "DEVICE"}};
  for (const v1::Model& model : *models) {
    rows.push_back({model.name(), EnumText(v1::ModelState_Name(model.state()), "MODEL_STATE_"),
                    model.family(), absl::StrCat(model.num_layers()),
                    absl::StrCat(model.hidden_size()), absl::StrCat(model.intermediate_size()),
                    EnumText(v1::DataType_Name(model.dtype()), "DATA_TYPE_"), model.device()});
  }
  PrintTable(rows);
  return kOk;
}

int GetModel(const Globals& globals, const std::string& name) {
  Client client = globals.Connect();
  v1::GetModelRequest request;
  request.set_name(ResourceName("models", name));
  const auto response = client.GetModel(request);
  if (!response.ok()) return Fail(response.status());
  const v1::Model& model = response->model();
  if (globals.json) {
    PrintJson(model);
    return kOk;
  }
  PrintTable({{"name", model.name()},
              {"state", EnumText(v1::ModelState_Name(model.state()), "MODEL_STATE_")},
              {"family", model.family()},
              {"layers", absl::StrCat(model.num_layers())},
              {"hidden", absl::StrCat(model.hidden_size())},
              {"neurons a layer", absl::StrCat(model.intermediate_size())},
              {"heads", absl::StrCat(model.num_attention_heads(), " (", model.num_key_value_heads(),
                                     " key/value)")},
              {"vocabulary", absl::StrCat(model.vocab_size())},
              {"context", absl::StrCat(model.context_length())},
              {"weights", Short(model.weights_digest())},
              {"tokenizer", Short(model.tokenizer_digest())}});
  return kOk;
}

int Generate(const Globals& globals, const GenerateFlags& flags) {
  const absl::StatusOr<v1::StreamGenerateRequest> request = MakeGenerateRequest(flags);
  if (!request.ok()) {
    Fail(request.status());
    return kUsageError;
  }
  Client client = globals.Connect();
  if (globals.json) {
    const auto response = client.Generate(AsUnary(*request));
    if (!response.ok()) return Fail(response.status());
    PrintJson(*response);
    return kOk;
  }
  Stream<v1::StreamGenerateResponse> stream = client.StreamGenerate(*request);
  return PrintStream(stream, flags.n > 1);
}

int Capture(const Globals& globals, const CaptureFlags& flags) {
  v1::CaptureRequest request;
  request.set_model(ResourceName("models", flags.prompt.model));
  const auto prompt = MakePrompt(flags.prompt);
  const auto site = ParseSite(flags.site);
  const auto layers = ParseLayers(flags.layers);
  const auto tokens = ParseTokenKind(flags.tokens);
  const auto reduction = ParseReduction(flags.reduction);
  for (const absl::Status& status :
       {prompt.status(), site.status(), layers.status(), tokens.status(), reduction.status(),
        AddInterventions(flags.prompt, request)}) {
    if (!status.ok()) {
      Fail(status);
      return kUsageError;
    }
  }
  v1::CaptureInput& input = *request.add_inputs();
  *input.mutable_prompt() = *prompt;
  if (!flags.response.empty()) input.mutable_response()->set_text(flags.response);
  v1::Tap& tap = *request.add_taps();
  tap.set_site(*site);
  *tap.mutable_layers() = *layers;
  tap.mutable_tokens()->set_kind(*tokens);
  tap.set_reduction(*reduction);

  std::ofstream file;
  if (!flags.out.empty()) {
    file.open(flags.out, std::ios::binary);
    if (!file)
      return Fail(absl::InvalidArgumentError(absl::StrCat("cannot write '", flags.out, "'")));
  }
  Client client = globals.Connect();
  Stream<v1::CaptureResponse> stream = client.Capture(request);
  const CancelOnInterrupt<v1::CaptureResponse> guard(stream);
  std::vector<std::vector<std::string>> rows = {{"LAYER", "POSITION", "NORM"}};
  v1::CaptureResponse event;
  while (stream.Read(&event)) {
    if (globals.json) PrintJson(event);
    if (!event.has_chunk()) continue;
    const v1::CaptureChunk& chunk = event.chunk();
    const auto elements = TensorElements(chunk.tensor());
    if (!elements.ok() || chunk.tensor().shape_size() != 3) {
      return Fail(absl::InternalError("the server sent a malformed chunk"));
    }
    if (file)
      file.write(chunk.tensor().data().data(),
                 static_cast<std::streamsize>(chunk.tensor().data().size()));
    const int64_t num_tokens = chunk.tensor().shape(1);
    const size_t width = static_cast<size_t>(chunk.tensor().shape(2));
    const bool reduced = num_tokens != chunk.positions_size();
    for (int64_t row = 0; row < chunk.tensor().shape(0) * num_tokens; ++row) {
      const int layer = static_cast<int>(row / num_tokens);
      const int token = static_cast<int>(row % num_tokens);
      rows.push_back({layer < chunk.layers_size() ? absl::StrCat(chunk.layers(layer)) : "-",
                      reduced ? absl::StrCat(flags.reduction, " of ", chunk.positions_size())
                              : absl::StrCat(chunk.positions(token)),
                      absl::StrFormat("%.5g", Norm({elements->data() + row * width, width}))});
    }
  }
  if (const absl::Status status = stream.Finish(); !status.ok()) return Fail(status);
  if (!globals.json) PrintTable(rows);
  if (!flags.out.empty()) std::cerr << "float32 rows in table order: " << flags.out << "\n";
  return kOk;
}

int ListVectors(const Globals& globals) {
  Client client = globals.Connect();
  const auto vectors = AllPages<v1::Vector>(
      v1::ListVectorsRequest(), [&](const auto& request) { return client.ListVectors(request); },
      [](const auto& page) { return page.vectors(); });
  if (!vectors.ok()) return Fail(vectors.status());
  if (globals.json) return PrintJsonLines(*vectors);
  std::vector<std::vector<std::string>> rows = {
      {"VECTOR", "MODEL", "SITE", "LAYERS", "WIDTH", "NAME"}};
  for (const v1::Vector& vector : *vectors) {
    rows.push_back({vector.name(), vector.model(), EnumText(v1::Site_Name(vector.site()), "SITE_"),
                    absl::StrCat(vector.layers_size()), absl::StrCat(vector.width()),
                    vector.display_name()});
  }
  PrintTable(rows);
  return kOk;
}

int ExtractVectors(const Globals& globals, const ExtractFlags& flags) {
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) {
    Fail(layers.status());
    return kUsageError;
  }
  Client client = globals.Connect();
  const auto artifact = DataSetArtifact(client, flags.data_set);
  if (!artifact.ok()) return Fail(artifact.status());
  v1::ExtractVectorsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.set_artifact(*artifact);
  *request.mutable_layers() = *layers;
  request.set_display_name(flags.display_name);
  const auto response = client.ExtractVectors(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  std::cout << response->vector().name() << "\n";
  std::vector<std::vector<std::string>> rows = {
      {"LAYER", "EXPRESSING", "OTHERS", "NORM", "SPLIT-HALF", "AUROC"}};
  for (const v1::VectorStatistics& row : response->statistics()) {
    rows.push_back(
        {absl::StrCat(row.layer()), absl::StrCat(row.num_expressing()),
         absl::StrCat(row.num_non_expressing()), absl::StrFormat("%.4g", row.norm()),
         row.has_split_half_cosine() ? absl::StrFormat("%.3f", row.split_half_cosine()) : "-",
         row.has_auroc() ? absl::StrFormat("%.3f", row.auroc()) : "-"});
  }
  PrintTable(rows);
  for (const std::string& warning : response->warnings())
    std::cerr << "warning: " << warning << "\n";
  return kOk;
}

int DecomposeVectors(const Globals& globals, const std::string& intrinsic,
                     const std::string& prompted) {
  v1::DecomposeVectorsRequest request;
  v1::VectorPair& pair = *request.add_pairs();
  pair.set_intrinsic(ResourceName("vectors", intrinsic));
  pair.set_prompted(ResourceName("vectors", prompted));
  Client client = globals.Connect();
  const auto response = client.DecomposeVectors(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  const v1::PairDecomposition& parts = response->decompositions(0);
  PrintTable({{"shared axis", parts.shared().name()},
              {"difference axis", parts.difference().name()},
              {"intrinsic, orthogonalised", parts.intrinsic_orthogonal().name()},
              {"prompted, orthogonalised", parts.prompted_orthogonal().name()}});
  std::vector<std::vector<std::string>> rows = {{"LAYER", "COSINE", "NORM KEPT", "S1", "S2"}};
  for (const v1::LayerDecomposition& layer : parts.layers()) {
    rows.push_back({absl::StrCat(layer.layer()), absl::StrFormat("%.3f", layer.cosine()),
                    absl::StrFormat("%.3f", layer.retained_norm_fraction()),
                    absl::StrFormat("%.4g", layer.singular_value_shared()),
                    absl::StrFormat("%.4g", layer.singular_value_difference())});
  }
  PrintTable(rows);
  for (const std::string& warning : parts.warnings()) std::cerr << "warning: " << warning << "\n";
  return kOk;
}

int ClassifyNeurons(const Globals& globals, const ClassifyFlags& flags) {
  v1::ClassifyNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.mutable_vectors()->set_intrinsic(ResourceName("vectors", flags.intrinsic));
  request.mutable_vectors()->set_prompted(ResourceName("vectors", flags.prompted));
  request.set_top_percent(flags.top_percent);
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) {
    Fail(layers.status());
    return kUsageError;
  }
  *request.mutable_layers() = *layers;
  Client client = globals.Connect();
  const auto response = client.ClassifyNeurons(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    PrintNeuronSet(response->neuron_set());
  }
  return kOk;
}

int AttributeNeurons(const Globals& globals, const AttributeFlags& flags) {
  Client client = globals.Connect();
  const auto request = MakeAttribution(client, flags);
  if (!request.ok()) return Fail(request.status());
  const auto response = client.AttributeNeurons(*request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    PrintNeuronSet(response->neuron_set());
  }
  return kOk;
}

int CreateAttributionJob(const Globals& globals, const AttributeFlags& flags) {
  Client client = globals.Connect();
  auto attribution = MakeAttribution(client, flags);
  if (!attribution.ok()) return Fail(attribution.status());
  v1::CreateJobRequest request;
  request.set_validate_only(flags.validate_only);
  request.set_display_name(flags.display_name);
  *request.mutable_spec()->mutable_attribute_neurons() = *std::move(attribution);
  const auto response = client.CreateJob(request);
  if (!response.ok()) return Fail(response.status());
  if (flags.validate_only) {
    PrintJson(response->estimate());
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

int GetJob(const Globals& globals, const std::string& name) {
  v1::GetJobRequest request;
  request.set_name(ResourceName("jobs", name));
  Client client = globals.Connect();
  const auto response = client.GetJob(request);
  if (!response.ok()) return Fail(response.status());
  PrintJob(globals, response->job());
  return kOk;
}

int ListJobs(const Globals& globals) {
  Client client = globals.Connect();
  const auto jobs = AllPages<v1::Job>(
      v1::ListJobsRequest(), [&](const auto& request) { return client.ListJobs(request); },
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
  Stream<v1::WatchJobResponse> stream = client.WatchJob(request);
  const CancelOnInterrupt<v1::WatchJobResponse> guard(stream);
  JobProgressLine line;
  v1::WatchJobResponse response;
  while (stream.Read(&response)) line.Update(response.job());
  line.Finish();
  if (const absl::Status status = stream.Finish(); !status.ok()) return Fail(status);
  const int code = GetJob(globals, name);
  return response.job().state() == v1::JOB_STATE_SUCCEEDED ? code : kServerError;
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

int ListArtifacts(const Globals& globals) {
  Client client = globals.Connect();
  const auto artifacts = AllPages<v1::Artifact>(
      v1::ListArtifactsRequest(),
      [&](const auto& request) { return client.ListArtifacts(request); },
      [](const auto& page) { return page.artifacts(); });
  if (!artifacts.ok()) return Fail(artifacts.status());
  if (globals.json) return PrintJsonLines(*artifacts);
  std::vector<std::vector<std::string>> rows = {{"ARTIFACT", "TYPE", "BYTES", "SHA-256", "NAME"}};
  for (const v1::Artifact& artifact : *artifacts) {
    rows.push_back({artifact.name(), artifact.media_type(), absl::StrCat(artifact.size_bytes()),
                    Short(artifact.sha256()), artifact.display_name()});
  }
  PrintTable(rows);
  return kOk;
}

int WriteArtifact(const Globals& globals, const std::string& path, const std::string& media_type) {
  const auto bytes = ReadFile(path);
  if (!bytes.ok()) return Fail(bytes.status());
  v1::WriteArtifactHeader header;
  header.set_media_type(media_type);
  header.set_display_name(path.substr(path.find_last_of('/') + 1));
  Client client = globals.Connect();
  const auto artifact = client.WriteArtifact(*bytes, header);
  if (!artifact.ok()) return Fail(artifact.status());
  if (globals.json) {
    PrintJson(*artifact);
  } else {
    std::cout << artifact->name() << "\n";
  }
  return kOk;
}

int ReadArtifact(const Globals& globals, const std::string& name, const std::string& path) {
  // Written beside the target and renamed at the end, so that a file under its name is always whole
  // and checked.
  const std::string partial = absl::StrCat(path, ".partial");
  std::ofstream file;
  if (path != "-") {
    file.open(partial, std::ios::binary);
    if (!file) return Fail(absl::InvalidArgumentError(absl::StrCat("cannot write '", path, "'")));
  }
  std::ostream& out = path == "-" ? std::cout : file;
  Client client = globals.Connect();
  const auto artifact =
      client.ReadArtifact(ResourceName("artifacts", name), [&](const std::string& bytes) {
        out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        return out ? absl::OkStatus() : absl::InvalidArgumentError("cannot write the output");
      });
  if (!artifact.ok()) {
    if (path != "-") std::remove(partial.c_str());
    return Fail(artifact.status());
  }
  if (path != "-") {
    file.close();
    if (std::rename(partial.c_str(), path.c_str()) != 0) {
      return Fail(absl::InvalidArgumentError(absl::StrCat("cannot write '", path, "'")));
    }
  }
  return kOk;
}

}  // namespace valuescope::command_line
