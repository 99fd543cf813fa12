# The exporter, Prometheus with the alert rules, Alertmanager that writes mails, and Grafana with the dashboard.
# All of them listen on this machine only: ssh -L 3000:127.0.0.1:3000 shows Grafana, and -L 9188:127.0.0.1:9188 our own page.
{
  # A long random text in a file that user grafana can read. It has to stay the same.
  services.grafana.settings.security.secret_key = "$__file{/run/secrets/grafana}";

  services.comfyui-xpu.monitoring = {
    enable = true;
    grafana = true;
    alertmanager = {
      route = {
        receiver = "mail";
        group_by = [
          "alertname"
          "server"
        ];
      };
      receivers = [
        {
          name = "mail";
          email_configs = [
            {
              to = "admin@example.org";
              from = "studio@example.org";
              smarthost = "mail.example.org:587";
              auth_username = "studio@example.org";
              auth_password_file = "/run/secrets/mail";
            }
          ];
        }
      ];
    };
  };
}
