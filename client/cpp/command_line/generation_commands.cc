#include <cmath>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

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
                << LowerWithoutPrefix(v1::FinishReason_Name(event.completion().finish_reason()),
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

double Norm(std::span<const float> elements) {
  double sum = 0;
  for (const float element : elements) sum += static_cast<double>(element) * element;
  return std::sqrt(sum);
}

}  // namespace

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

}  // namespace valuescope::command_line
