// consumer HOST:PORT models/ID: generates, streams the same and prints both texts, then asks for a
// model that is not there.
#include <valuescope/client.h>

#include <iostream>
#include <string>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  valuescope::Client client(argv[1]);

  valuescope::v1::GenerateRequest request;
  request.set_model(argv[2]);
  request.mutable_prompt()->set_text("The sea is");
  request.mutable_sampling()->set_max_tokens(5);
  request.mutable_sampling()->set_temperature(0);
  const auto response = client.Generate(request);
  if (!response.ok()) {
    std::cerr << response.status() << "\n";
    return 1;
  }
  std::cout << response->completions(0).text() << "\n";

  valuescope::v1::StreamGenerateRequest same;
  same.set_model(request.model());
  *same.mutable_prompt() = request.prompt();
  *same.mutable_sampling() = request.sampling();
  auto stream = client.StreamGenerate(same);
  valuescope::v1::StreamGenerateResponse event;
  while (stream.Read(&event)) std::cout << event.delta().text();
  std::cout << "\n";
  if (const absl::Status status = stream.Finish(); !status.ok()) return 1;

  request.set_model("models/none");
  const auto refused = client.Generate(request);
  std::cout << valuescope::ErrorDetailsOf(refused.status()).reason << "\n";
  return 0;
}
